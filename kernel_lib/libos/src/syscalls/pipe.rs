//! pipe(2), pipe2(2). fcntl's F_SETPIPE_SZ and F_GETPIPE_SZ, and splice(2), reach pipes through [`crate::ipc::pipe`].

use super::{full, Call, Entry};
use crate::errno::EINVAL;
use crate::fs::file::{O_CLOEXEC, O_NONBLOCK, O_WRONLY};
use crate::fs::OpenFile;
use crate::ipc::pipe::Pipe;
use crate::SysResult;

pub const CALLS: &[Entry] = &[full(22, "pipe", pipe), full(293, "pipe2", pipe2)];

const RLIMIT_NOFILE: usize = 7;
const O_DIRECT: u32 = 0o40000;

fn make(call: &Call<'_>, flags: u32) -> SysResult {
    if flags & !(O_CLOEXEC | O_NONBLOCK | O_DIRECT) != 0 {
        return Err(EINVAL);
    }
    let pipe = Pipe::new();
    let status = flags & (O_NONBLOCK | O_DIRECT);
    let reader = OpenFile::new(pipe.end(true, false), status);
    let writer = OpenFile::new(pipe.end(false, true), status | O_WRONLY);
    let (table, limit) = (call.task.files(), call.task.limit(RLIMIT_NOFILE));
    let close_on_exec = flags & O_CLOEXEC != 0;
    let first = table.insert(reader, close_on_exec, 0, limit)?;
    let second = table.insert(writer, close_on_exec, 0, limit).inspect_err(|_| drop(table.remove(first)))?;
    hal::user::write(call.args[0], &[first, second]).inspect_err(|_| {
        drop(table.remove(first));
        drop(table.remove(second));
    })?;
    Ok(0)
}

fn pipe(call: &mut Call<'_>) -> SysResult {
    make(call, 0)
}

fn pipe2(call: &mut Call<'_>) -> SysResult {
    make(call, call.uint(1))
}
