//! What a thread owes others when it leaves its memory: robust futexes (set_robust_list(2)) and the word of CLONE_CHILD_CLEARTID.

use super::{pi, wake, Key};
use crate::errno::{Errno, EFAULT};
use crate::process::Task;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use hal::user;
use linux_abi::process::{FUTEX_BITSET_MATCH_ANY, FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS, ROBUST_LIST_LIMIT};

/// At exit and at execve: while the old memory is still there.
pub fn leave_memory(task: &Arc<Task>) {
    let Some(memory) = task.memory() else { return };
    let list = task.robust_list.swap(0, Ordering::Relaxed);
    if list != 0 {
        let _ = walk(task, list);
    }
    pi::owner_leaves(task);
    let clear = task.clear_child_tid.swap(0, Ordering::Relaxed);
    // Linux leaves the word alone when nobody else could see it.
    if clear != 0 && Arc::strong_count(&memory) > 2 && user::write(clear, &0u32).is_ok() {
        if let Ok(key) = Key::of(task, clear, false) {
            let _ = wake(key, 1, FUTEX_BITSET_MATCH_ANY);
        }
    }
}

/// struct robust_list_head: list, futex_offset, list_op_pending; bit 0 of a pointer marks a priority-inheriting futex.
fn walk(task: &Arc<Task>, head: u64) -> Result<(), Errno> {
    let [first, offset, pending]: [u64; 3] = user::read(head)?;
    let mut entry = first;
    let mut left = ROBUST_LIST_LIMIT;
    while entry & !1 != head {
        // The next pointer is read before the word is touched: its owner may free it at once.
        let next: Result<u64, Errno> = user::read(entry & !1);
        if entry != pending {
            owner_died(task, (entry & !1).wrapping_add(offset), entry & 1 != 0, false)?;
        }
        entry = next?;
        left -= 1;
        if left == 0 {
            break;
        }
    }
    if pending & !1 != 0 {
        owner_died(task, (pending & !1).wrapping_add(offset), pending & 1 != 0, true)?;
    }
    Ok(())
}

/// Marks a word that the thread owns and wakes one waiter (handle_futex_death).
fn owner_died(task: &Arc<Task>, address: u64, priority: bool, pending: bool) -> Result<(), Errno> {
    if address & 3 != 0 {
        return Err(EFAULT);
    }
    let mut value = user::load_u32(address)?;
    loop {
        if pending && !priority && value == 0 {
            // It had released the word, but not woken anybody yet.
            return wake_one(task, address);
        }
        if value & FUTEX_TID_MASK != task.tid() {
            return Ok(());
        }
        let found = user::compare_exchange_u32(address, value, value & FUTEX_WAITERS | FUTEX_OWNER_DIED)?;
        if found == value {
            break;
        }
        value = found;
    }
    if !priority && value & FUTEX_WAITERS != 0 {
        return wake_one(task, address);
    }
    Ok(())
}

fn wake_one(task: &Arc<Task>, address: u64) -> Result<(), Errno> {
    let keys = [Key::of(task, address, true)?, Key::of(task, address, false)?];
    // Robust mutexes of one process wait on the private word, shared ones on the shared one; Linux's private and shared keys of the same
    // private memory are one as well.
    if wake(keys[0], 1, FUTEX_BITSET_MATCH_ANY)? == 0 && keys[0] != keys[1] {
        wake(keys[1], 1, FUTEX_BITSET_MATCH_ANY)?;
    }
    Ok(())
}
