//! Asynchronous I/O of Linux's own kind: io_setup(2), io_submit(2), io_getevents(2), io_cancel(2), io_destroy(2).

use super::read_write::{read_file, read_file_at, vectors, write_file, write_file_at};
use super::{partial, Call, Entry};
use crate::errno::{Errno, EAGAIN, EBADF, EFAULT, EINVAL, EOPNOTSUPP};
use crate::fs::OpenFile;
use crate::io::IoBuffer;
use crate::ipc::aio::{Context, Event};
use crate::ipc::eventfd::EventFd;
use crate::ipc::links;
use crate::mm::map::{Place, Request};
use crate::mm::vma::Flags;
use crate::mm::{Limits, Source};
use crate::SysResult;
use alloc::sync::Arc;
use hal::paging::Rights;
use hal::user;
use linux_abi::time::Timespec;
use zerocopy::{FromBytes, IntoBytes};

const MISSING: &str = "requests are done when they are submitted; IOCB_CMD_POLL";

pub const CALLS: &[Entry] = &[
    partial(206, "io_setup", io_setup, MISSING),
    partial(207, "io_destroy", io_destroy, MISSING),
    partial(208, "io_getevents", io_getevents, MISSING),
    partial(209, "io_submit", io_submit, MISSING),
    partial(210, "io_cancel", io_cancel, MISSING),
    partial(333, "io_pgetevents", io_pgetevents, MISSING),
];

/// /proc/sys/fs/aio-max-nr.
const MOST_REQUESTS: u32 = 65536;
const IOCB_CMD_PREAD: u16 = 0;
const IOCB_CMD_PWRITE: u16 = 1;
const IOCB_CMD_FSYNC: u16 = 2;
const IOCB_CMD_FDSYNC: u16 = 3;
const IOCB_CMD_PREADV: u16 = 7;
const IOCB_CMD_PWRITEV: u16 = 8;
const IOCB_FLAG_RESFD: u32 = 1;
const IOCB_FLAG_IOPRIO: u32 = 2;
/// What may stand in `rw_flags`: RWF_HIPRI, RWF_DSYNC, RWF_SYNC, RWF_NOWAIT, RWF_APPEND; only the first three need nothing done.
const RWF_HARMLESS: u32 = 7;

/// struct iocb.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: u32,
    operation: u16,
    priority: i16,
    descriptor: i32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    result_descriptor: i32,
}

fn io_setup(call: &mut Call<'_>) -> SysResult {
    let (most, address) = (call.uint(0), call.args[1]);
    if user::read::<u64>(address)? != 0 || most == 0 || most > i32::MAX as u32 / 32 {
        return Err(EINVAL);
    }
    if most > MOST_REQUESTS {
        return Err(EAGAIN);
    }
    // A context is known by the address of its ring. This one is never filled: libaio(3) then asks by system call.
    let space = call.task.memory().ok_or(EFAULT)?;
    let rights = Rights { read: true, write: true, execute: false };
    let request = Request {
        place: Place::Anywhere(0),
        bytes: hal::frame::PAGE as u64,
        rights,
        flags: Flags::default(),
        source: Source::Anonymous,
        populate: false,
        name: "",
    };
    let context = space.map(request, &Limits::of(call.task))?;
    user::write(address, &context)?;
    call.task.process.aio.add(context, most as usize);
    Ok(0)
}

fn io_destroy(call: &mut Call<'_>) -> SysResult {
    call.task.process.aio.remove(call.args[0])?;
    if let Some(space) = call.task.memory() {
        space.unmap(call.args[0], hal::frame::PAGE as u64)?;
    }
    Ok(0)
}

/// As many as could be submitted; the error of the first only if it is the first.
fn io_submit(call: &mut Call<'_>) -> SysResult {
    let context = call.task.process.aio.find(call.args[0])?;
    let count = usize::try_from(call.args[1] as i64).map_err(|_| EINVAL)?;
    for done in 0..count {
        let submitted = user::read(call.args[2] + 8 * done as u64).and_then(|request| submit(call, &context, request));
        if let Err(errno) = submitted {
            return if done > 0 { Ok(done) } else { Err(errno) };
        }
    }
    Ok(count)
}

fn submit(call: &Call<'_>, context: &Context, address: u64) -> Result<(), Errno> {
    let request: Iocb = user::read(address)?;
    if request.reserved != 0 || request.flags & !(IOCB_FLAG_RESFD | IOCB_FLAG_IOPRIO) != 0 || request.bytes > i64::MAX as u64 {
        return Err(EINVAL);
    }
    context.check_room()?;
    let files = call.task.files();
    let file = files.get(request.descriptor)?;
    let told = match request.flags & IOCB_FLAG_RESFD {
        0 => None,
        _ => {
            let told = files.get(request.result_descriptor)?;
            told.ops_as::<EventFd>().ok_or(EINVAL)?;
            Some(told)
        }
    };
    user::write(address + core::mem::offset_of!(Iocb, key) as u64, &0u32)?;
    let result = match perform(call, &file, &request)? {
        Ok(bytes) => bytes as i64,
        Err(errno) => -i64::from(errno.0),
    };
    context.complete(Event { data: request.data, request: address, result, result2: 0 });
    if let Some(eventfd) = told.as_ref().and_then(|told| told.ops_as::<EventFd>()) {
        eventfd.signal(1);
    }
    Ok(())
}

/// The outer error is one of submission, the inner one the request's own.
fn perform(call: &Call<'_>, file: &Arc<OpenFile>, request: &Iocb) -> Result<SysResult, Errno> {
    let writes = matches!(request.operation, IOCB_CMD_PWRITE | IOCB_CMD_PWRITEV);
    let mut buffer = match request.operation {
        IOCB_CMD_PREAD | IOCB_CMD_PWRITE => {
            let end = request.buffer.checked_add(request.bytes).filter(|&end| end <= user::LIMIT).ok_or(EFAULT)?;
            IoBuffer::user(request.buffer, (end - request.buffer) as usize)
        }
        IOCB_CMD_PREADV | IOCB_CMD_PWRITEV => vectors(request.buffer, request.bytes)?,
        IOCB_CMD_FSYNC | IOCB_CMD_FDSYNC => {
            if request.buffer != 0 || request.bytes != 0 || request.offset != 0 || request.rw_flags != 0 {
                return Err(EINVAL);
            }
            return match file.ops.sync(file, request.operation == IOCB_CMD_FDSYNC) {
                Err(EINVAL) => Err(EINVAL),
                done => Ok(done.map(|()| 0)),
            };
        }
        _ => return Err(EINVAL),
    };
    if request.rw_flags & !RWF_HARMLESS != 0 {
        return Err(EOPNOTSUPP);
    }
    if if writes { !file.writable() } else { !file.readable() } {
        return Err(EBADF);
    }
    if request.offset < 0 {
        return Err(EINVAL);
    }
    Ok(match (writes, file.ops.seekable()) {
        (false, true) => read_file_at(file, &mut buffer, request.offset),
        (false, false) => read_file(file, &mut buffer),
        (true, true) => write_file_at(call.task, file, &mut buffer, request.offset),
        (true, false) => write_file(call.task, file, &mut buffer),
    })
}

/// Nothing is ever under way: there is no such request.
fn io_cancel(call: &mut Call<'_>) -> SysResult {
    let _: Iocb = user::read(call.args[1])?;
    Err(EINVAL)
}

fn collect(call: &Call<'_>, deadline: Option<u64>) -> SysResult {
    let (least, most) = (call.args[1] as i64, call.args[2] as i64);
    let context = call.task.process.aio.find(call.args[0])?;
    if least < 0 || least > most {
        return Err(EINVAL);
    }
    let at = |index: usize| call.args[3] + (index * size_of::<Event>()) as u64;
    context.collect(least as usize, most as usize, deadline, |index, event| user::write(at(index), event))
}

fn deadline(address: u64) -> Result<Option<u64>, Errno> {
    if address == 0 {
        return Ok(None);
    }
    let ns = user::read::<Timespec>(address)?.to_ns().ok_or(EINVAL)?;
    Ok(Some(hal::time::monotonic().saturating_add(ns)))
}

fn io_getevents(call: &mut Call<'_>) -> SysResult {
    collect(call, deadline(call.args[4])?)
}

fn io_pgetevents(call: &mut Call<'_>) -> SysResult {
    let deadline = deadline(call.args[4])?;
    // struct __aio_sigset: address and size of the mask.
    let mask = match call.args[5] {
        0 => None,
        address => match user::read::<[u64; 2]>(address)? {
            [0, _] => None,
            [mask, 8] => Some(user::read(mask)?),
            _ => return Err(EINVAL),
        },
    };
    links::with_mask(call.task, mask, || collect(call, deadline))
}
