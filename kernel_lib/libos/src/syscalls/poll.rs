//! poll(2), ppoll(2), select(2), pselect6(2), epoll_create(2), epoll_ctl(2), epoll_wait(2), epoll_pwait(2), epoll_pwait2(2).

use super::{full, Call, Entry};
use crate::errno::{Errno, EFAULT, EINTR, EINVAL, ENOMEM, EPERM, ERESTARTNOHAND, ETIMEDOUT};
use crate::fs::file::{O_CLOEXEC, O_RDWR};
use crate::fs::{Events, OpenFile};
use crate::ipc::epoll::{self, Epoll};
use crate::ipc::links;
use crate::mm::reclaim;
use crate::wait::{wait_on, Interruptible, WaitQueue};
use crate::SysResult;
use alloc::sync::Arc;
use alloc::vec::Vec;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

pub const CALLS: &[Entry] = &[
    full(7, "poll", poll),
    full(23, "select", select),
    full(213, "epoll_create", epoll_create),
    full(232, "epoll_wait", epoll_wait),
    full(233, "epoll_ctl", epoll_ctl),
    full(270, "pselect6", pselect6),
    full(271, "ppoll", ppoll),
    full(281, "epoll_pwait", epoll_pwait),
    full(291, "epoll_create1", epoll_create1),
    full(441, "epoll_pwait2", epoll_pwait2),
];

const NANOSECOND: u64 = 1_000_000_000;
const RLIMIT_NOFILE: usize = 7;
const POLLNVAL: u16 = 0x20;
/// What poll(2) reports without being asked.
const ALWAYS: u32 = Events::ERR.0 | Events::HUP.0;

#[derive(FromBytes, IntoBytes, Immutable, Clone, Copy)]
#[repr(C)]
struct PollFd {
    fd: i32,
    events: u16,
    revents: u16,
}

/// struct timespec, and struct timeval (whose second word counts microseconds).
#[derive(FromBytes, IntoBytes, Immutable, Clone, Copy)]
#[repr(C)]
struct Pair {
    seconds: i64,
    fraction: i64,
}

/// A time limit that a program gave by address: absent, or monotonic ns.
fn deadline_at(address: u64, per_second: i64) -> Result<Option<u64>, Errno> {
    if address == 0 {
        return Ok(None);
    }
    let time: Pair = hal::user::read(address)?;
    // select(2) takes whatever number of microseconds; timespecs are checked.
    let seconds_of_fraction = if per_second == 1_000_000 { time.fraction / per_second } else { 0 };
    let fraction = time.fraction - seconds_of_fraction * per_second;
    if time.seconds < 0 || !(0..per_second).contains(&fraction) {
        return Err(EINVAL);
    }
    let seconds = (time.seconds as u64).saturating_add(seconds_of_fraction as u64);
    let ns = seconds.saturating_mul(NANOSECOND).saturating_add(fraction as u64 * (NANOSECOND / per_second as u64));
    Ok(Some(deadline_in(ns)))
}

/// 0 stands for "do not wait", so that the clock is not read for it.
fn deadline_in(ns: u64) -> u64 {
    if ns == 0 {
        0
    } else {
        hal::time::monotonic().saturating_add(ns).min(i64::MAX as u64)
    }
}

/// Linux stores what is left of the time limit; a buffer that cannot be written is not an error then.
fn store_rest(address: u64, deadline: Option<u64>, per_second: u64) {
    if let (true, Some(deadline)) = (address != 0, deadline) {
        let rest = if deadline == 0 { 0 } else { deadline.saturating_sub(hal::time::monotonic()) };
        let pair = Pair { seconds: (rest / NANOSECOND) as i64, fraction: (rest % NANOSECOND / (NANOSECOND / per_second)) as i64 };
        let _ = hal::user::write(address, &pair);
    }
}

/// The mask behind (address, bytes) of the …p… calls.
fn mask_at(address: u64, bytes: usize) -> Result<Option<u64>, Errno> {
    if address == 0 {
        return Ok(None);
    }
    if bytes != 8 {
        return Err(EINVAL);
    }
    hal::user::read(address).map(Some)
}

/// Waits until `look` counts something ready, at most until the deadline.
fn wait_ready(files: &[Arc<OpenFile>], deadline: Option<u64>, mut look: impl FnMut() -> usize) -> SysResult {
    let ready = look();
    if ready > 0 {
        return Ok(ready);
    }
    if deadline == Some(0) {
        // Nobody will wait for the news that is on its way from the host.
        let mut asked = false;
        for socket in files.iter().filter_map(|file| crate::net::socket::of(file)) {
            asked |= socket.refresh();
        }
        return Ok(if asked { look() } else { 0 });
    }
    let queues: Vec<&WaitQueue> = files.iter().filter_map(|file| file.ops.poll_queue(file)).collect();
    match wait_on(&queues, Interruptible::Yes, deadline, || Some(look()).filter(|&ready| ready > 0)) {
        Err(ETIMEDOUT) => Ok(0),
        Err(EINTR) => Err(ERESTARTNOHAND),
        outcome => outcome,
    }
}

fn poll_files(call: &Call<'_>, address: u64, count: usize, deadline: Option<u64>) -> SysResult {
    if count as u64 > call.task.limit(RLIMIT_NOFILE) {
        return Err(EINVAL);
    }
    let mut list = reclaim::items(PollFd::new_zeroed(), count)?;
    hal::user::read_bytes(address, list.as_mut_bytes())?;
    let table = call.task.files();
    let mut files = Vec::new();
    files.try_reserve_exact(count).map_err(|_| ENOMEM)?;
    // For each entry its place among the open files.
    let mut places = reclaim::items(None, count)?;
    for (entry, place) in list.iter_mut().zip(&mut places) {
        entry.revents = 0;
        if entry.fd >= 0 {
            match table.get(entry.fd) {
                Ok(file) => {
                    *place = Some(files.len());
                    files.push(file);
                }
                Err(_) => entry.revents = POLLNVAL,
            }
        }
    }
    let ready = wait_ready(&files, deadline, || {
        let mut ready = 0;
        for (entry, place) in list.iter_mut().zip(&places) {
            if let Some(file) = place.and_then(|place| files.get(place)) {
                entry.revents = (file.ops.poll(file).0 & (u32::from(entry.events) | ALWAYS)) as u16;
            }
            ready += usize::from(entry.revents != 0);
        }
        ready
    })?;
    for (index, entry) in list.iter().enumerate() {
        hal::user::write(address + index as u64 * 8 + 6, &entry.revents)?;
    }
    Ok(ready)
}

fn poll(call: &mut Call<'_>) -> SysResult {
    let deadline = u64::try_from(call.int(2)).ok().map(|ms| deadline_in(ms * 1_000_000));
    poll_files(call, call.args[0], call.uint(1) as usize, deadline)
}

fn ppoll(call: &mut Call<'_>) -> SysResult {
    let deadline = deadline_at(call.args[2], NANOSECOND as i64)?;
    let mask = mask_at(call.args[3], call.size(4))?;
    let outcome = links::with_mask(call.task, mask, || poll_files(call, call.args[0], call.uint(1) as usize, deadline));
    store_rest(call.args[2], deadline, NANOSECOND);
    outcome
}

/// What makes a descriptor ready for reading, for writing, and exceptional (select(2), "Correspondence between select() and poll()").
const SELECT: [u32; 3] = [0x1 | 0x40 | 0x80 | 0x10 | 0x8, 0x4 | 0x100 | 0x200 | 0x8, 0x2];

fn select_files(call: &Call<'_>, deadline: Option<u64>) -> SysResult {
    let table = call.task.files();
    let count = usize::try_from(call.int(0)).map_err(|_| EINVAL)?.min(call.task.limit(RLIMIT_NOFILE).min(1 << 20) as usize);
    let words = count.div_ceil(64);
    let addresses = &call.args[1..4];
    let mut sets: [Vec<u64>; 3] = Default::default();
    for (set, &address) in sets.iter_mut().zip(addresses) {
        *set = if address == 0 { alloc::vec![0; words] } else { hal::user::read_array(address, words)? };
    }
    let mut wanted = Vec::new();
    let mut files = Vec::new();
    for fd in 0..count {
        let which = (0..3).filter(|&set| sets[set][fd / 64] >> (fd % 64) & 1 == 1).fold(0_u8, |all, set| all | 1 << set);
        if which != 0 {
            wanted.push((fd, which));
            files.push(table.get(fd as i32)?);
        }
    }
    let mut found: [Vec<u64>; 3] = [alloc::vec![0; words], alloc::vec![0; words], alloc::vec![0; words]];
    let ready = wait_ready(&files, deadline, || {
        let mut ready = 0;
        for (&(fd, which), file) in wanted.iter().zip(&files) {
            let events = file.ops.poll(file).0;
            for set in (0..3).filter(|&set| which >> set & 1 == 1 && events & SELECT[set] != 0) {
                found[set][fd / 64] |= 1 << (fd % 64);
                ready += 1;
            }
        }
        ready
    })?;
    for (set, &address) in found.iter().zip(addresses) {
        if address != 0 {
            hal::user::write_bytes(address, set.as_bytes())?;
        }
    }
    Ok(ready)
}

fn select(call: &mut Call<'_>) -> SysResult {
    let deadline = deadline_at(call.args[4], 1_000_000)?;
    let outcome = select_files(call, deadline);
    store_rest(call.args[4], deadline, 1_000_000);
    outcome
}

fn pselect6(call: &mut Call<'_>) -> SysResult {
    let deadline = deadline_at(call.args[4], NANOSECOND as i64)?;
    let mask = match call.args[5] {
        0 => None,
        address => {
            let [mask, bytes]: [u64; 2] = hal::user::read(address)?;
            mask_at(mask, bytes as usize)?
        }
    };
    let outcome = links::with_mask(call.task, mask, || select_files(call, deadline));
    store_rest(call.args[4], deadline, NANOSECOND);
    outcome
}

fn new_epoll(call: &Call<'_>, close_on_exec: bool) -> SysResult {
    let file = OpenFile::new(Epoll::new(), O_RDWR);
    call.task.files().insert(file, close_on_exec, 0, call.task.limit(RLIMIT_NOFILE)).map(|fd| fd as usize)
}

fn epoll_create(call: &mut Call<'_>) -> SysResult {
    if call.int(0) <= 0 {
        return Err(EINVAL);
    }
    new_epoll(call, false)
}

fn epoll_create1(call: &mut Call<'_>) -> SysResult {
    if call.uint(0) & !O_CLOEXEC != 0 {
        return Err(EINVAL);
    }
    new_epoll(call, call.uint(0) & O_CLOEXEC != 0)
}

/// Bytes of the packed `struct epoll_event`.
const EVENT_BYTES: usize = 12;

fn epoll_ctl(call: &mut Call<'_>) -> SysResult {
    const ADD: i32 = 1;
    const DEL: i32 = 2;
    const MOD: i32 = 3;
    let (operation, fd) = (call.int(1), call.int(2));
    let mut bytes = [0_u8; EVENT_BYTES];
    if operation != DEL {
        hal::user::read_bytes(call.args[3], &mut bytes)?;
    }
    let [a, b, c, d, data @ ..] = bytes;
    let event = epoll::Event { events: u32::from_ne_bytes([a, b, c, d]), data: u64::from_ne_bytes(data) };
    let table = call.task.files();
    let instance = table.get(call.int(0))?;
    let file = table.get(fd)?;
    if file.ops.poll_queue(&file).is_none() && file.ops_as::<Epoll>().is_none() {
        return Err(EPERM);
    }
    let epoll = epoll::of(&instance)?;
    if Arc::ptr_eq(&instance, &file) {
        return Err(EINVAL);
    }
    match operation {
        ADD => epoll.add(fd, &file, event)?,
        DEL => epoll.delete(fd, &file)?,
        MOD => epoll.modify(fd, &file, event)?,
        _ => return Err(EINVAL),
    }
    Ok(0)
}

fn wait_epoll(call: &Call<'_>, deadline: Option<u64>) -> SysResult {
    let most = usize::try_from(call.int(2)).ok().filter(|&most| most > 0 && most <= i32::MAX as usize / EVENT_BYTES).ok_or(EINVAL)?;
    let epoll = epoll::of(&call.task.files().get(call.int(0))?)?;
    let mut address = call.args[1];
    if address.checked_add((most * EVENT_BYTES) as u64).is_none_or(|end| end > abi::layout::LIBOS_BASE) {
        return Err(EFAULT);
    }
    epoll.wait(most, deadline, |event| {
        let mut bytes = [0_u8; EVENT_BYTES];
        bytes[..4].copy_from_slice(&event.events.to_ne_bytes());
        bytes[4..].copy_from_slice(&event.data.to_ne_bytes());
        hal::user::write_bytes(address, &bytes)?;
        address += EVENT_BYTES as u64;
        Ok(())
    })
}

fn epoll_deadline(ms: i32) -> Option<u64> {
    u64::try_from(ms).ok().map(|ms| deadline_in(ms * 1_000_000))
}

fn epoll_wait(call: &mut Call<'_>) -> SysResult {
    wait_epoll(call, epoll_deadline(call.int(3)))
}

fn epoll_pwait(call: &mut Call<'_>) -> SysResult {
    let mask = mask_at(call.args[4], call.size(5))?;
    links::with_mask(call.task, mask, || wait_epoll(call, epoll_deadline(call.int(3))))
}

fn epoll_pwait2(call: &mut Call<'_>) -> SysResult {
    let deadline = deadline_at(call.args[3], NANOSECOND as i64)?;
    let mask = mask_at(call.args[4], call.size(5))?;
    links::with_mask(call.task, mask, || wait_epoll(call, deadline))
}
