//! Futexes whose word names the owner (futex(2), "Priority-inheritance futexes"). The scheduler has one class, so there is no priority to
//! lend: what is left is exact ownership, handed to the first waiter.
//!
//! One sleeping lock guards all of them: they are rare, and under it the word in user memory may be touched.

use super::{Key, Waiter, TABLE};
use crate::errno::{Errno, EAGAIN, EDEADLK, EINTR, EINVAL, EPERM, ERESTARTNOINTR, ESRCH, ETIMEDOUT};
use crate::process::{tree, Task};
use crate::sched;
use crate::sync::Mutex;
use crate::wait::Interruptible;
use crate::SysResult;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use hal::user;
use linux_abi::process::{FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS};

struct Claim {
    task: Arc<Task>,
    key: Key,
    /// The word in the waiter's memory.
    address: u64,
    granted: AtomicBool,
}

/// Waiters of all such futexes, in order of arrival.
static CLAIMS: Mutex<Vec<Arc<Claim>>> = Mutex::new(Vec::new());

fn others(claims: &[Arc<Claim>], key: Key) -> bool {
    claims.iter().any(|claim| claim.key == key)
}

/// Replaces the word by what `change` makes of it, until nobody interferes. Gives the old value.
fn update(address: u64, change: impl Fn(u32) -> Result<u32, Errno>) -> Result<u32, Errno> {
    let mut value = user::load_u32(address)?;
    loop {
        let found = user::compare_exchange_u32(address, value, change(value)?)?;
        if found == value {
            return Ok(value);
        }
        value = found;
    }
}

/// Takes a free word for `task`; true: it is its owner's now. Otherwise the word is marked as waited for.
fn acquire(task: &Task, claims: &[Arc<Claim>], key: Key, address: u64, mark: bool) -> Result<bool, Errno> {
    let waiters = if others(claims, key) { FUTEX_WAITERS } else { 0 };
    let tid = task.tid();
    let old = update(address, |value| match value & FUTEX_TID_MASK {
        0 => Ok(tid | value & FUTEX_OWNER_DIED | waiters),
        owner if owner == tid => Err(EDEADLK),
        _ if mark => Ok(value | FUTEX_WAITERS),
        _ => Ok(value),
    })?;
    if old & FUTEX_TID_MASK == 0 {
        return Ok(true);
    }
    if tree::find_task(old & FUTEX_TID_MASK).is_none() {
        return Err(ESRCH);
    }
    Ok(false)
}

/// FUTEX_LOCK_PI, FUTEX_LOCK_PI2.
pub fn lock(task: &Arc<Task>, address: u64, private: bool, deadline: Option<u64>) -> SysResult {
    let key = Key::of(task, address, private)?;
    let claim = {
        let mut claims = CLAIMS.lock();
        if acquire(task, &claims, key, address, true)? {
            return Ok(0);
        }
        let claim = Arc::new(Claim { task: task.clone(), key, address, granted: AtomicBool::new(false) });
        claims.push(claim.clone());
        claim
    };
    sleep(task, &claim, deadline).map_err(|errno| if errno == EINTR { ERESTARTNOINTR } else { errno })
}

fn sleep(task: &Arc<Task>, claim: &Arc<Claim>, deadline: Option<u64>) -> SysResult {
    let granted = || claim.granted.load(Ordering::Acquire);
    let failure = loop {
        if granted() {
            return Ok(0);
        }
        if task.interrupted(Interruptible::Yes) {
            break EINTR;
        }
        if deadline.is_some_and(|at| hal::time::monotonic() >= at) {
            break ETIMEDOUT;
        }
        sched::sleep(Interruptible::Yes, deadline, granted);
    };
    let mut claims = CLAIMS.lock();
    claims.retain(|other| !Arc::ptr_eq(other, claim));
    if granted() {
        Ok(0)
    } else {
        Err(failure)
    }
}

/// FUTEX_TRYLOCK_PI.
pub fn try_lock(task: &Arc<Task>, address: u64, private: bool) -> SysResult {
    let key = Key::of(task, address, private)?;
    let claims = CLAIMS.lock();
    if acquire(task, &claims, key, address, false)? {
        Ok(0)
    } else {
        Err(EAGAIN)
    }
}

/// FUTEX_UNLOCK_PI: the first waiter is the owner from now on.
pub fn unlock(task: &Arc<Task>, address: u64, private: bool) -> SysResult {
    let key = Key::of(task, address, private)?;
    let mut claims = CLAIMS.lock();
    if user::load_u32(address)? & FUTEX_TID_MASK != task.tid() {
        return Err(EPERM);
    }
    hand_over(&mut claims, key, address, 0)?;
    Ok(0)
}

fn hand_over(claims: &mut Vec<Arc<Claim>>, key: Key, address: u64, mark: u32) -> Result<(), Errno> {
    let next = claims.iter().position(|claim| claim.key == key).map(|index| claims.remove(index));
    let Some(next) = next else {
        update(address, |_| Ok(mark))?;
        return Ok(());
    };
    let waiters = if others(claims, key) { FUTEX_WAITERS } else { 0 };
    update(address, |_| Ok(next.task.tid() | waiters | mark))?;
    next.granted.store(true, Ordering::Release);
    sched::wake(&next.task);
    Ok(())
}

/// The owner's thread ends: what others wait for goes to them, marked (FUTEX_OWNER_DIED).
pub fn owner_leaves(task: &Arc<Task>) {
    let Some(mut claims) = CLAIMS.try_lock().or_else(|| Some(CLAIMS.lock())) else { return };
    if claims.is_empty() {
        return;
    }
    let memory = task.memory();
    let words: Vec<(Key, u64)> = claims.iter().map(|claim| (claim.key, claim.address)).collect();
    for (key, address) in words {
        // Only words that this thread can see at the waiter's address: the same memory, which is where such futexes live.
        let same = claims.iter().any(|claim| claim.key == key && same_memory(&claim.task, memory.as_ref()));
        let mine = user::load_u32(address).is_ok_and(|value| {
            let owner = value & FUTEX_TID_MASK;
            owner == task.tid() || (owner == 0 && value & FUTEX_OWNER_DIED != 0)
        });
        if same && mine && others(&claims, key) {
            let _ = hand_over(&mut claims, key, address, FUTEX_OWNER_DIED);
        }
    }
}

fn same_memory(task: &Task, memory: Option<&Arc<crate::mm::AddressSpace>>) -> bool {
    matches!((task.memory(), memory), (Some(own), Some(other)) if Arc::ptr_eq(&own, other))
}

/// FUTEX_WAIT_REQUEUE_PI: sleeps on one word until FUTEX_CMP_REQUEUE_PI makes it the owner of, or a waiter for, the other.
pub fn wait_requeue(
    task: &Arc<Task>,
    address: u64,
    expected: u32,
    bitset: u32,
    target: u64,
    private: bool,
    deadline: Option<u64>,
) -> SysResult {
    if address == target || bitset == 0 {
        return Err(EINVAL);
    }
    let to = Key::of(task, target, private)?;
    let waiter = Waiter::new(task, Key::of(task, address, private)?, bitset, Some(to));
    waiter.enqueue();
    super::sleep_on(task, &[(waiter, address, expected)], deadline)?;
    // The requeue has made a claim in our name, or granted the word already.
    let claim = CLAIMS.lock().iter().find(|claim| Arc::ptr_eq(&claim.task, task) && claim.key == to).cloned();
    match claim {
        Some(claim) => sleep(task, &claim, deadline),
        None => Ok(0),
    }
}

/// FUTEX_CMP_REQUEUE_PI: the first waiter gets the word if it is free, up to `most` others become waiters for it.
pub fn requeue(task: &Arc<Task>, from: u64, to: u64, most: usize, private: bool, expected: u32) -> SysResult {
    let (source, target) = (Key::of(task, from, private)?, Key::of(task, to, private)?);
    let mut claims = CLAIMS.lock();
    if user::load_u32(from)? != expected {
        return Err(EAGAIN);
    }
    let mut chosen = Vec::new();
    {
        let mut queue = TABLE[source.bucket()].lock();
        let mut index = 0;
        while index < queue.len() && chosen.len() < most.saturating_add(1) {
            let waiter = &queue[index];
            if *waiter.key.lock() == source {
                if waiter.requeue_to != Some(target) {
                    return Err(EINVAL);
                }
                chosen.extend(queue.remove(index));
            } else {
                index += 1;
            }
        }
    }
    let count = chosen.len();
    for waiter in chosen {
        if !acquire(&waiter.task, &claims, target, to, true).unwrap_or(false) {
            claims.push(Arc::new(Claim { task: waiter.task.clone(), key: target, address: to, granted: AtomicBool::new(false) }));
        }
        waiter.wake();
    }
    Ok(count)
}
