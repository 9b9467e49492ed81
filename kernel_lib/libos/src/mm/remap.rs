//! mremap(2).

use super::map::{check_growth, take_out, Limits};
use super::space::{is_user, AddressSpace, Inner, Leftovers};
use super::vma::{Backing, Flags, Vma, MIN_ADDRESS};
use super::PAGE_SIZE;
use crate::errno::{Errno, EAGAIN, EFAULT, EINVAL, ENOMEM};
use abi::layout::LIBOS_BASE;

/// Where the mapping may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    No,
    Anywhere,
    To(u64),
}

impl AddressSpace {
    /// mremap(2): the new address. `keep`: MREMAP_DONTUNMAP, the old range stays mapped and empty.
    pub fn remap(&self, old: u64, old_bytes: u64, new_bytes: u64, how: Move, keep: bool, limits: &Limits) -> Result<u64, Errno> {
        if !old.is_multiple_of(PAGE_SIZE) {
            return Err(EINVAL);
        }
        let round = |bytes: u64| bytes.checked_next_multiple_of(PAGE_SIZE).filter(|&bytes| bytes <= LIBOS_BASE);
        let (old_bytes, new_bytes) = (round(old_bytes).ok_or(EINVAL)?, round(new_bytes).ok_or(EINVAL)?);
        if new_bytes == 0 || (keep && old_bytes != new_bytes) {
            return Err(EINVAL);
        }
        let old_end = old.checked_add(old_bytes).filter(|&end| is_user(old, end)).ok_or(EINVAL)?;
        if let Move::To(target) = how {
            let end = target.checked_add(new_bytes).filter(|&end| is_user(target, end)).ok_or(EINVAL)?;
            if target % PAGE_SIZE != 0 || target < MIN_ADDRESS || (target < old_end && old < end) {
                return Err(EINVAL);
            }
        }
        let (address, grown) = self.edit(|inner, left| -> Result<(u64, Option<(u64, u64)>), Errno> {
            if let Move::To(target) = how {
                take_out(inner, left, target, target + new_bytes);
            }
            // Shrinking in place needs no single mapping.
            if old_bytes >= new_bytes && !keep && !matches!(how, Move::To(_)) {
                if inner.map.find(old).is_none() {
                    return Err(EFAULT);
                }
                if old_bytes > new_bytes {
                    take_out(inner, left, old + new_bytes, old_end);
                }
                return Ok((old, None));
            }
            if old_bytes > new_bytes {
                take_out(inner, left, old + new_bytes, old_end);
            }
            let kept = old_bytes.min(new_bytes);
            let vma = inner.map.find(old).filter(|vma| !vma.flags.has(Flags::HIDDEN)).ok_or(EFAULT)?;
            if old_bytes == 0 && !vma.shared() {
                return Err(EINVAL);
            }
            if kept > vma.end - old {
                return Err(EFAULT);
            }
            if vma.flags.has(Flags::SPECIAL) && new_bytes > kept {
                return Err(EFAULT);
            }
            let vma = vma.clone();
            let added = if keep { new_bytes } else { new_bytes - kept };
            if vma.flags.has(Flags::LOCKED) && inner.map.totals().locked.saturating_add(added) > limits.locked {
                return Err(EAGAIN);
            }
            check_growth(inner, added, 0, vma.rights.write && !vma.shared(), limits)?;
            let populate = |start: u64| vma.flags.has(Flags::LOCKED).then_some((start, start + new_bytes));
            if how != Move::No || old_bytes != 0 {
                let in_place = !keep && !matches!(how, Move::To(_)) && old_bytes != 0 && old_end == vma.end;
                if in_place && old + new_bytes <= LIBOS_BASE && inner.map.is_free(old_end, old + new_bytes) {
                    let mut more = part(&vma, old, old_end);
                    extend(&mut more, old_end - old, old_end, old + new_bytes);
                    inner.map.insert(more);
                    return Ok((old, populate(old)));
                }
            }
            let target = match how {
                Move::No => return Err(ENOMEM),
                Move::To(target) => target,
                Move::Anywhere => inner.map.find_room(new_bytes, 0, inner.layout.mmap_top, PAGE_SIZE).ok_or(ENOMEM)?,
            };
            relocate(inner, left, &vma, (old, kept), (target, new_bytes), keep || old_bytes == 0)?;
            Ok((target, populate(target)))
        })?;
        if let Some((start, end)) = grown {
            let _ = self.populate(start, end, false);
        }
        Ok(address)
    }
}

/// The part `[start, end)` of a VMA as one of its own.
fn part(vma: &Vma, start: u64, end: u64) -> Vma {
    let mut part = vma.clone();
    if let Backing::Object(_, offset) = &mut part.backing {
        *offset += start - vma.start;
    }
    (part.start, part.end) = (start, end);
    part
}

/// Turns a part into what follows it: `skip` bytes further in the object, at `[start, end)`.
fn extend(part: &mut Vma, skip: u64, start: u64, end: u64) {
    if let Backing::Object(_, offset) = &mut part.backing {
        *offset += skip;
    }
    (part.start, part.end) = (start, end);
}

/// Moves `from` = (address, bytes) to `to`, pages and all; `keep`: the old VMA stays.
fn relocate(inner: &mut Inner, left: &mut Leftovers, vma: &Vma, from: (u64, u64), to: (u64, u64), keep: bool) -> Result<(), Errno> {
    let mut moved = part(vma, from.0, from.0 + from.1.max(PAGE_SIZE));
    (moved.start, moved.end) = (to.0, to.0 + to.1);
    moved.ahead = (0, 0);
    super::patch::range_moves(inner, left, from.0, from.0 + from.1);
    if inner.table.relocate(from.0, to.0, from.1, &mut left.flush).is_err() {
        // No memory for a table: what has moved already has no VMA and must not stay.
        inner.table.unmap(to.0, to.0 + to.1, &mut left.flush);
        return Err(ENOMEM);
    }
    if !keep {
        take_out(inner, left, from.0, from.0 + from.1);
    } else if vma.flags.has(Flags::LOCKED) {
        // mremap(2): the old mapping is no longer locked.
        inner.map.edit(from.0, from.0 + from.1, |vma| vma.flags = vma.flags.without(Flags::LOCKED));
    }
    inner.map.insert(moved);
    Ok(())
}
