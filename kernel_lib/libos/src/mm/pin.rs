//! Memory for others: frames held for a host transfer, and memory of processes that are not running here (process_vm_readv(2),
//! /proc/PID/mem, ptrace(2), the argument strings).

use super::space::{page_rights, AddressSpace};
use super::vma::Flags;
use super::{FaultResult, Pinned, PAGE_SIZE};
use crate::errno::{Errno, EFAULT, EIO, ENOMEM, EOPNOTSUPP};
use abi::layout::LIBOS_BASE;
use abi::request::{Segment, MAX_SEGMENTS};
use alloc::vec::Vec;
use hal::frame::{Frame, Page};
use hal::upcall::Access;

impl AddressSpace {
    /// Makes the ranges present (and writable for `write`) and holds their frames for the host: stops early at the first bad page.
    /// EFAULT: there is none at all. EOPNOTSUPP: the first page is the host's own file page and is to be written (go through a buffer).
    /// File pages that are only read come as copies.
    pub fn pin(&self, ranges: &[(u64, usize)], write: bool) -> Result<Pinned, Errno> {
        let mut pinned = Pinned { segments: Vec::new(), held: Vec::new() };
        for &(address, bytes) in ranges {
            let Some(end) = address.checked_add(bytes as u64).filter(|&end| end <= LIBOS_BASE) else {
                return finish(pinned, EFAULT);
            };
            let mut at = address;
            while at < end {
                let stop = ((at | (PAGE_SIZE - 1)) + 1).min(end);
                let page = match self.hold(at, write) {
                    Ok(page) => page,
                    Err(error) => return finish(pinned, error),
                };
                let gpa = page.address() + at % PAGE_SIZE;
                let count = pinned.segments.len();
                match pinned.segments.last_mut() {
                    Some(last) if last.gpa + last.bytes == gpa => last.bytes += stop - at,
                    _ if count == MAX_SEGMENTS => return Ok(pinned),
                    _ => pinned.segments.push(Segment { gpa, bytes: stop - at }),
                }
                pinned.held.push(page);
                at = stop;
            }
        }
        Ok(pinned)
    }

    /// The RAM page at `address`, held.
    fn hold(&self, address: u64, write: bool) -> Result<Page, Errno> {
        match self.page(address, write, false)? {
            Page::Window(_) if write => Err(EOPNOTSUPP),
            page @ Page::Window(_) => Frame::copy_of(&page).map(Page::Ram).ok_or(ENOMEM),
            page @ Page::Ram(_) => Ok(page),
        }
    }

    /// The page at `address`, faulted in as if the program had touched it. `force`: as a debugger, whatever its rights (but what is
    /// shared is never written against them). The window of a file page stays mapped while this space maps it.
    fn page(&self, address: u64, write: bool, force: bool) -> Result<Page, Errno> {
        let at = address & !(PAGE_SIZE - 1);
        loop {
            let access = {
                let mut inner = self.inner.lock();
                let inner = &mut *inner;
                let vma = inner.map.find(at).filter(|vma| !vma.flags.has(Flags::HIDDEN));
                let (rights, shared) = vma.map(|vma| (vma.rights, vma.shared())).unwrap_or_default();
                let allowed = vma.is_some() && (if write { rights.write } else { page_rights(rights).read });
                let by_force = force && vma.is_some() && !(write && shared);
                if vma.is_some() && !allowed && !by_force {
                    return Err(EFAULT);
                }
                if let Some((page, present)) = inner.table.lookup(at) {
                    inner.table.ask(at);
                    if !write || present.write {
                        return Ok(page);
                    }
                    if by_force && !allowed {
                        return self.own_copy(inner, at, &page);
                    }
                } else if by_force && !allowed {
                    return Err(EIO);
                }
                Access { address, write, execute: false, present: false }
            };
            match self.fault(access) {
                FaultResult::Done => {}
                FaultResult::OutOfMemory => return Err(ENOMEM),
                FaultResult::Segv(_) | FaultResult::Bus => return Err(EFAULT),
            }
        }
    }

    /// A debugger's write to memory that the program may not write: a private copy with the present rights.
    fn own_copy(&self, inner: &mut super::space::Inner, at: u64, page: &Page) -> Result<Page, Errno> {
        let Some(entry) = inner.table.entry(at) else { return Err(EFAULT) };
        // `page` holds a reference of its own.
        if entry.ram && entry.references == 2 {
            return Ok(page.clone());
        }
        let copy = Page::Ram(Frame::copy_of(page).ok_or(ENOMEM)?);
        let mut flush = hal::paging::Flush::new();
        let mapped = inner.table.map(at, copy.clone(), entry.rights, &mut flush);
        inner.table.flush(flush);
        mapped.map_err(|_| ENOMEM)?;
        Ok(copy)
    }

    /// Copies out of the space, loaded or not, as far as possible: bytes copied. `force`: whatever the rights.
    pub fn read(&self, address: u64, out: &mut [u8], force: bool) -> usize {
        let mut done = 0;
        while done < out.len() {
            let at = address.wrapping_add(done as u64);
            let bytes = ((PAGE_SIZE - at % PAGE_SIZE) as usize).min(out.len() - done);
            if at >= LIBOS_BASE {
                break;
            }
            let Ok(page) = self.page(at, false, force) else { break };
            hal::phys::read(page.address() + at % PAGE_SIZE, &mut out[done..done + bytes]);
            done += bytes;
        }
        done
    }

    /// Copies into the space, loaded or not, as far as possible: bytes copied. `force`: whatever the rights.
    pub fn write(&self, address: u64, data: &[u8], force: bool) -> usize {
        let mut done = 0;
        while done < data.len() {
            let at = address.wrapping_add(done as u64);
            let bytes = ((PAGE_SIZE - at % PAGE_SIZE) as usize).min(data.len() - done);
            if at >= LIBOS_BASE {
                break;
            }
            let Ok(page) = self.page(at, true, force) else { break };
            hal::phys::write(page.address() + at % PAGE_SIZE, &data[done..done + bytes]);
            done += bytes;
        }
        done
    }
}

fn finish(pinned: Pinned, error: Errno) -> Result<Pinned, Errno> {
    if pinned.segments.is_empty() {
        Err(error)
    } else {
        Ok(pinned)
    }
}
