//! The system-call table: data (number, name, handler, level, what is missing) and the dispatcher.
//!
//! Each family file has a `CALLS` array; [`TABLE`] is put together from them at compile time. `docs/compatibility.md` is generated from it.

mod aio;
mod attributes;
mod control;
mod credentials;
mod descriptor;
mod directory;
mod event;
mod futex;
mod ipc;
mod memory;
mod mounting;
mod notify;
mod open;
mod paths;
mod pipe;
mod poll;
mod process;
mod read_write;
mod signal;
mod socket;
mod system;
mod sysv_memory;
mod thread;
mod time;
pub mod trace;
mod transfer;
mod xattr;

use crate::errno::ENOSYS;
use crate::process::Task;
use crate::SysResult;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use hal::context::UserContext;

pub const NUMBERS: usize = 480;

/// A system call in progress.
pub struct Call<'a> {
    pub task: &'a Arc<Task>,
    pub args: [u64; 6],
    /// The program's registers: for fork, execve, sigreturn. The dispatcher stores the result to RAX.
    pub context: &'a mut UserContext,
}

impl Call<'_> {
    pub const fn int(&self, index: usize) -> i32 {
        self.args[index] as i32
    }
    pub const fn uint(&self, index: usize) -> u32 {
        self.args[index] as u32
    }
    pub const fn size(&self, index: usize) -> usize {
        self.args[index] as usize
    }
}

pub type Handler = fn(&mut Call<'_>) -> SysResult;

/// How much of the call is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// As Linux.
    Full,
    /// Works; `missing` says what does not.
    Partial,
    /// Answers as a Linux without that feature (ENOSYS, EPERM …) on purpose.
    Refused,
}

#[derive(Clone, Copy)]
pub struct Entry {
    pub number: usize,
    pub name: &'static str,
    pub handler: Handler,
    pub level: Level,
    pub missing: &'static str,
}

/// A complete call.
pub const fn full(number: usize, name: &'static str, handler: Handler) -> Entry {
    Entry { number, name, handler, level: Level::Full, missing: "" }
}

/// A call with something missing.
pub const fn partial(number: usize, name: &'static str, handler: Handler, missing: &'static str) -> Entry {
    Entry { number, name, handler, level: Level::Partial, missing }
}

/// A call that is refused on purpose.
pub const fn refused(number: usize, name: &'static str, handler: Handler, missing: &'static str) -> Entry {
    Entry { number, name, handler, level: Level::Refused, missing }
}

/// Every family's calls. One line a family.
#[rustfmt::skip]
const FAMILIES: &[&[Entry]] = &[
    aio::CALLS,
    attributes::CALLS,
    descriptor::CALLS,
    directory::CALLS,
    control::CALLS,
    credentials::CALLS,
    event::CALLS,
    ipc::CALLS,
    futex::CALLS,
    memory::CALLS,
    mounting::CALLS,
    open::CALLS,
    notify::CALLS,
    pipe::CALLS,
    poll::CALLS,
    read_write::CALLS,
    process::CALLS,
    signal::CALLS,
    socket::CALLS,
    system::CALLS,
    sysv_memory::CALLS,
    transfer::CALLS,
    xattr::CALLS,
    thread::CALLS,
    time::CALLS,
];

const fn assemble() -> [Option<Entry>; NUMBERS] {
    let mut table = [None; NUMBERS];
    let mut family = 0;
    while family < FAMILIES.len() {
        let mut index = 0;
        while index < FAMILIES[family].len() {
            let entry = FAMILIES[family][index];
            assert!(table[entry.number].is_none(), "two handlers for one number");
            table[entry.number] = Some(entry);
            index += 1;
        }
        family += 1;
    }
    table
}

pub static TABLE: [Option<Entry>; NUMBERS] = assemble();

/// Runs the call named by the context's RAX. Signals, restarts and rescheduling are the caller's ([`crate::process::system_call`]).
pub fn dispatch(task: &Arc<Task>, context: &mut UserContext) -> SysResult {
    let number = context.orig_rax as usize;
    let counters = hal::cpu::counters();
    let Some(Some(entry)) = TABLE.get(number) else {
        counters.syscalls_unsupported.fetch_add(1, Ordering::Relaxed);
        return Err(ENOSYS);
    };
    counters.syscalls[number].fetch_add(1, Ordering::Relaxed);
    let args = context.args();
    (entry.handler)(&mut Call { task, args, context })
}

/// A structure that grows with Linux's versions (clone3(2), sched_setattr(2)): what the program's is shorter is zero; E2BIG when a longer
/// one has something in the part that is not known here.
fn read_versioned<T: zerocopy::FromBytes + zerocopy::IntoBytes>(address: u64, bytes: usize) -> Result<T, crate::Errno> {
    use crate::errno::E2BIG;
    let known = core::mem::size_of::<T>();
    if bytes > hal::frame::PAGE {
        return Err(E2BIG);
    }
    let mut value = T::new_zeroed();
    hal::user::read_bytes(address, &mut value.as_mut_bytes()[..bytes.min(known)])?;
    if bytes > known {
        let mut rest = alloc::vec![0; bytes - known];
        hal::user::read_bytes(address + known as u64, &mut rest)?;
        if rest.iter().any(|&byte| byte != 0) {
            return Err(E2BIG);
        }
    }
    Ok(value)
}
