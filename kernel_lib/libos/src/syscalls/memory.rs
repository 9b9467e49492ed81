//! mmap(2) and its family, brk(2), madvise(2), mincore(2), msync(2), mlock(2), protection keys, NUMA policies.

use super::{full, partial, refused, Call, Entry};
use crate::errno::{Errno, EACCES, EFAULT, EINVAL, ENOMEM, ENOSPC, ENOSYS, EOPNOTSUPP, EOVERFLOW, EPERM};
use crate::fs::file::O_WRONLY;
use crate::fs::OpenFile;
use crate::mm::map::{Place, Request};
use crate::mm::remap::Move;
use crate::mm::shmem::SharedMemory;
use crate::mm::vma::Flags;
use crate::mm::{AddressSpace, Limits, Source, PAGE_SIZE};
use crate::SysResult;
use alloc::sync::Arc;
use hal::paging::Rights;
use linux_abi::memory::*;

pub const CALLS: &[Entry] = &[
    partial(9, "mmap", mmap, "MAP_HUGETLB (no huge pages are set aside), MAP_SYNC"),
    full(10, "mprotect", mprotect),
    full(11, "munmap", munmap),
    full(12, "brk", brk),
    full(25, "mremap", mremap),
    full(26, "msync", msync),
    full(27, "mincore", mincore),
    partial(28, "madvise", madvise, "MADV_COLLAPSE, memory-failure injection; hints about huge pages and swap change nothing"),
    full(149, "mlock", mlock),
    full(150, "munlock", munlock),
    full(151, "mlockall", mlockall),
    full(152, "munlockall", munlockall),
    partial(237, "mbind", mbind, "one memory node: policies are checked, then forgotten"),
    partial(238, "set_mempolicy", set_mempolicy, "one memory node: policies are checked, then forgotten"),
    partial(239, "get_mempolicy", get_mempolicy, "one memory node, the default policy"),
    refused(323, "userfaultfd", not_implemented, "as a Linux built without it"),
    full(325, "mlock2", mlock2),
    partial(329, "pkey_mprotect", pkey_mprotect, "no protection keys, as a CPU without them: the key must be -1"),
    partial(330, "pkey_alloc", pkey_alloc, "no protection keys, as a CPU without them"),
    partial(331, "pkey_free", pkey_free, "no protection keys, as a CPU without them"),
];

fn space(call: &Call<'_>) -> Result<Arc<AddressSpace>, Errno> {
    call.task.memory().ok_or(ENOMEM)
}

fn limits(call: &Call<'_>) -> Limits {
    Limits::of(call.task)
}

const fn rights(protection: u32) -> Rights {
    Rights { read: protection & PROT_READ != 0, write: protection & PROT_WRITE != 0, execute: protection & PROT_EXEC != 0 }
}

/// mmap(2). Order of the checks as in Linux: offset, descriptor, length, place, kind of file.
fn mmap(call: &mut Call<'_>) -> SysResult {
    let [address, bytes, _, _, _, offset] = call.args;
    let (protection, flags) = (call.uint(2), call.uint(3));
    if offset % PAGE_SIZE != 0 {
        return Err(EINVAL);
    }
    let file = if flags & MAP_ANONYMOUS == 0 { Some(mappable(call, call.int(4))?) } else { None };
    if bytes == 0 {
        return Err(EINVAL);
    }
    let length = bytes.checked_next_multiple_of(PAGE_SIZE).ok_or(ENOMEM)?;
    if file.is_some() && offset.checked_add(length).is_none() {
        return Err(EOVERFLOW);
    }
    if flags & MAP_HUGETLB != 0 {
        // As with no huge pages set aside (vm.nr_hugepages).
        return Err(ENOMEM);
    }
    let limits = limits(call);
    if flags & MAP_LOCKED != 0 && limits.locked == 0 {
        return Err(EPERM);
    }
    let rights = rights(protection);
    let source = match file {
        Some(file) => file_source(&file, flags, rights, offset)?,
        None => anonymous_source(flags, length)?,
    };
    let flag = |bit: u32, property: Flags| if flags & bit != 0 { property } else { Flags::default() };
    let properties = flag(MAP_GROWSDOWN, Flags::GROWS_DOWN)
        .with(flag(MAP_LOCKED, Flags::LOCKED))
        .with(flag(MAP_NORESERVE, Flags::NO_RESERVE))
        .with(flag(MAP_STACK, Flags::STACK));
    let place = if flags & MAP_FIXED_NOREPLACE != 0 {
        Place::FixedIfFree(address)
    } else if flags & MAP_FIXED != 0 {
        Place::Fixed(address)
    } else if flags & MAP_32BIT != 0 {
        Place::Low(address)
    } else {
        Place::Anywhere(address)
    };
    let populate = flags & MAP_POPULATE != 0 && flags & MAP_NONBLOCK == 0;
    let request = Request { place, bytes: length, rights, flags: properties, source, populate, name: "" };
    Ok(space(call)?.map(request, &limits)? as usize)
}

fn mappable(call: &Call<'_>, fd: i32) -> Result<Arc<OpenFile>, Errno> {
    call.task.files().get(fd)
}

fn anonymous_source(flags: u32, bytes: u64) -> Result<Source, Errno> {
    match flags & MAP_TYPE {
        MAP_PRIVATE => Ok(Source::Anonymous),
        MAP_SHARED if flags & MAP_GROWSDOWN == 0 => {
            let pages = SharedMemory::anonymous(bytes);
            Ok(Source::Object { pages, offset: 0, shared: true, max_rights: ALL })
        }
        _ => Err(EINVAL),
    }
}

const ALL: Rights = Rights { read: true, write: true, execute: true };

fn file_source(file: &Arc<OpenFile>, flags: u32, rights: Rights, offset: u64) -> Result<Source, Errno> {
    let shared = match flags & MAP_TYPE {
        MAP_SHARED => true,
        MAP_SHARED_VALIDATE if flags & !MAP_KNOWN & !MAP_TYPE != 0 => return Err(EOPNOTSUPP),
        MAP_SHARED_VALIDATE => true,
        MAP_PRIVATE => false,
        _ => return Err(EINVAL),
    };
    if shared && rights.write && !file.writable() {
        return Err(EACCES);
    }
    if file.flags() & 3 == O_WRONLY {
        return Err(EACCES);
    }
    let mut max_rights = ALL;
    let noexec = file.location.as_ref().is_some_and(|location| location.mount.flags() & crate::fs::mount::NOEXEC != 0);
    if noexec {
        if rights.execute {
            return Err(EPERM);
        }
        max_rights.execute = false;
    }
    let pages = file.ops.pages(file)?;
    if flags & MAP_GROWSDOWN != 0 {
        return Err(EINVAL);
    }
    if shared {
        max_rights.write = file.writable();
        if max_rights.write && pages.may_write_shared().is_err() {
            // A sealed file may still be mapped for reading, for good.
            if rights.write {
                return Err(EPERM);
            }
            max_rights.write = false;
        }
    }
    Ok(Source::Object { pages, offset, shared, max_rights })
}

/// munmap(2).
fn munmap(call: &mut Call<'_>) -> SysResult {
    space(call)?.unmap(call.args[0], call.args[1]).map(|()| 0)
}

/// mprotect(2).
fn mprotect(call: &mut Call<'_>) -> SysResult {
    let protection = call.uint(2);
    const KNOWN: u32 = PROT_READ | PROT_WRITE | PROT_EXEC | PROT_SEM;
    let growth = protection & (PROT_GROWSDOWN | PROT_GROWSUP);
    if growth == PROT_GROWSDOWN | PROT_GROWSUP || protection & !(KNOWN | PROT_GROWSDOWN | PROT_GROWSUP) != 0 {
        return Err(EINVAL);
    }
    if growth == PROT_GROWSUP {
        // No stack grows up on this machine.
        return Err(EINVAL);
    }
    space(call)?.protect(call.args[0], call.args[1], rights(protection), growth != 0, &limits(call)).map(|()| 0)
}

/// brk(2): the system call gives the present end instead of an error.
fn brk(call: &mut Call<'_>) -> SysResult {
    Ok(space(call)?.brk(call.args[0], &limits(call)) as usize)
}

/// mremap(2).
fn mremap(call: &mut Call<'_>) -> SysResult {
    let [old, old_bytes, new_bytes, _, target, _] = call.args;
    let flags = call.uint(3);
    let (may_move, fixed, keep) = (flags & MREMAP_MAYMOVE != 0, flags & MREMAP_FIXED != 0, flags & MREMAP_DONTUNMAP != 0);
    if flags & !(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP) != 0 || ((fixed || keep) && !may_move) {
        return Err(EINVAL);
    }
    let how = match (fixed, may_move) {
        (true, _) => Move::To(target),
        (false, true) => Move::Anywhere,
        (false, false) => Move::No,
    };
    Ok(space(call)?.remap(old, old_bytes, new_bytes, how, keep, &limits(call))? as usize)
}

/// msync(2).
fn msync(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(2);
    if flags & !(MS_ASYNC | MS_INVALIDATE | MS_SYNC) != 0 || flags & (MS_ASYNC | MS_SYNC) == MS_ASYNC | MS_SYNC {
        return Err(EINVAL);
    }
    if !call.args[0].is_multiple_of(PAGE_SIZE) {
        return Err(EINVAL);
    }
    space(call)?.sync(call.args[0], call.args[1], flags & MS_SYNC != 0, flags & MS_INVALIDATE != 0).map(|()| 0)
}

/// Bytes that mincore(2) looks at together.
const MINCORE_STEP: u64 = 1 << 28;

/// mincore(2).
fn mincore(call: &mut Call<'_>) -> SysResult {
    let [start, length, out, ..] = call.args;
    let space = space(call)?;
    let mut done = 0;
    loop {
        let part = (length - done).min(MINCORE_STEP);
        let residency = space.residency(start.checked_add(done).ok_or(ENOMEM)?, part)?;
        hal::user::write_bytes(out.wrapping_add(done / PAGE_SIZE), &residency)?;
        done += part;
        if done == length {
            return Ok(0);
        }
    }
}

/// madvise(2).
fn madvise(call: &mut Call<'_>) -> SysResult {
    space(call)?.advise(call.args[0], call.args[1], call.int(2)).map(|()| 0)
}

fn mlock(call: &mut Call<'_>) -> SysResult {
    space(call)?.lock(call.args[0], call.args[1], true, false, &limits(call)).map(|()| 0)
}

fn mlock2(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(2);
    if flags & !MLOCK_ONFAULT != 0 {
        return Err(EINVAL);
    }
    space(call)?.lock(call.args[0], call.args[1], true, flags & MLOCK_ONFAULT != 0, &limits(call)).map(|()| 0)
}

fn munlock(call: &mut Call<'_>) -> SysResult {
    space(call)?.lock(call.args[0], call.args[1], false, false, &limits(call)).map(|()| 0)
}

fn mlockall(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(0);
    if flags == 0 || flags & !(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0 || flags == MCL_ONFAULT {
        return Err(EINVAL);
    }
    let limits = limits(call);
    if limits.locked == 0 {
        return Err(EPERM);
    }
    space(call)?.lock_all(flags & MCL_CURRENT != 0, flags & MCL_FUTURE != 0, flags & MCL_ONFAULT != 0, &limits).map(|()| 0)
}

fn munlockall(call: &mut Call<'_>) -> SysResult {
    space(call)?.lock_all(false, false, false, &Limits::NONE).map(|()| 0)
}

/// pkey_mprotect(2): with key -1 it is mprotect(2); there are no other keys.
fn pkey_mprotect(call: &mut Call<'_>) -> SysResult {
    if call.int(3) != -1 {
        return Err(EINVAL);
    }
    mprotect(call)
}

/// pkey_alloc(2): ENOSPC also when the CPU has no keys.
fn pkey_alloc(call: &mut Call<'_>) -> SysResult {
    if call.args[0] != 0 || call.args[1] & !3 != 0 {
        return Err(EINVAL);
    }
    Err(ENOSPC)
}

fn pkey_free(_call: &mut Call<'_>) -> SysResult {
    Err(EINVAL)
}

const MPOL_MAX: u32 = 7;
const MPOL_MODE_FLAGS: u32 = 0xe000;
const MPOL_F_NODE: u64 = 1;
const MPOL_F_ADDR: u64 = 2;
const MPOL_F_MEMS_ALLOWED: u64 = 4;
const MOST_NODES: u64 = 4096 * 8;

/// The node mask of a policy: only node 0 exists. MPOL_DEFAULT (0) and MPOL_LOCAL (4) take none.
fn check_policy(mode: u32, mask: u64, most: u64) -> Result<(), Errno> {
    if mode & !MPOL_MODE_FLAGS >= MPOL_MAX || most > MOST_NODES {
        return Err(EINVAL);
    }
    let mut nodes = 0u64;
    if mask != 0 && most > 1 {
        nodes = hal::user::read(mask).map_err(|_| EFAULT)?;
    }
    let takes_nodes = !matches!(mode & !MPOL_MODE_FLAGS, 0 | 4);
    // MPOL_PREFERRED (1) without nodes means local.
    let good = if takes_nodes { nodes == 1 || (mode & !MPOL_MODE_FLAGS == 1 && nodes == 0) } else { nodes == 0 };
    if good {
        Ok(())
    } else {
        Err(EINVAL)
    }
}

/// set_mempolicy(2).
fn set_mempolicy(call: &mut Call<'_>) -> SysResult {
    check_policy(call.uint(0), call.args[1], call.args[2]).map(|()| 0)
}

/// mbind(2).
fn mbind(call: &mut Call<'_>) -> SysResult {
    let [start, length, _, mask, most, flags] = call.args;
    if start % PAGE_SIZE != 0 || flags & !7 != 0 {
        return Err(EINVAL);
    }
    check_policy(call.uint(2), mask, most)?;
    if length == 0 {
        return Ok(0);
    }
    // A hole in the range is EFAULT here.
    space(call)?.is_mapped(start, length).then_some(0).ok_or(EFAULT)
}

/// get_mempolicy(2).
fn get_mempolicy(call: &mut Call<'_>) -> SysResult {
    let [mode, mask, most, address, flags, _] = call.args;
    if flags & !(MPOL_F_NODE | MPOL_F_ADDR | MPOL_F_MEMS_ALLOWED) != 0 || (mask != 0 && most < 1) {
        return Err(EINVAL);
    }
    if flags & MPOL_F_MEMS_ALLOWED != 0 && flags & (MPOL_F_NODE | MPOL_F_ADDR) != 0 {
        return Err(EINVAL);
    }
    if flags & MPOL_F_ADDR != 0 {
        space(call)?.is_mapped(address & !(PAGE_SIZE - 1), 1).then_some(()).ok_or(EFAULT)?;
    } else if address != 0 || flags & MPOL_F_NODE != 0 {
        return Err(EINVAL);
    }
    if mode != 0 {
        hal::user::write(mode, &0u32)?;
    }
    if mask != 0 {
        let bytes = (most.min(MOST_NODES).div_ceil(64) * 8) as usize;
        hal::user::zero(mask, bytes)?;
        hal::user::write(mask, &u64::from(flags & MPOL_F_MEMS_ALLOWED != 0))?;
    }
    Ok(0)
}

fn not_implemented(_call: &mut Call<'_>) -> SysResult {
    Err(ENOSYS)
}
