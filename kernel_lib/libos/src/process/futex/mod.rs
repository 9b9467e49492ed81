//! Futexes (futex(2)): who sleeps on which word of user memory.
//!
//! A waiter enters the queue first and looks at the word then, so a wake-up in between is never lost; the price is that a waiter that was
//! woken in between reports success although the word had changed, which futex(2) allows ("spurious wake-ups").
//!
//! Lock order: a bucket's spin lock is a leaf; two are taken in the order of their index. Priority-inheriting futexes have a sleeping lock
//! of their own (`pi`), taken before any bucket.

pub mod pi;
mod robust;

pub use robust::leave_memory;

use super::Task;
use crate::errno::{Errno, EAGAIN, EINTR, EINVAL, ETIMEDOUT};
use crate::sched;
use crate::wait::Interruptible;
use crate::SysResult;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use hal::sync::SpinLock;
use hal::user;

/// What a futex word is known by: private ones by address space and address, shared ones by the object behind the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    object: u64,
    offset: u64,
}

const BUCKETS: usize = 256;
static TABLE: [SpinLock<VecDeque<Arc<Waiter>>>; BUCKETS] = [const { SpinLock::new(VecDeque::new()) }; BUCKETS];

/// One thread asleep on one word.
pub struct Waiter {
    task: Arc<Task>,
    /// Changes by a requeue, under the locks of both buckets.
    key: SpinLock<Key>,
    bitset: u32,
    woken: AtomicBool,
    /// FUTEX_WAIT_REQUEUE_PI: only a requeue to this word takes it away.
    requeue_to: Option<Key>,
}

impl Key {
    /// The key of the word at `address`. EINVAL: not aligned; EFAULT: not the program's.
    pub fn of(task: &Task, address: u64, private: bool) -> Result<Self, Errno> {
        if address & 3 != 0 {
            return Err(EINVAL);
        }
        if address >= abi::layout::LIBOS_BASE {
            return Err(crate::errno::EFAULT);
        }
        let memory = task.memory().ok_or(EINVAL)?;
        if private {
            return Ok(Self { object: Arc::as_ptr(&memory) as u64, offset: address });
        }
        // The object behind it has to be found, so the page must be there. It comes if it can.
        user::load_u32(address)?;
        // In memory that nobody shares it is the private key again.
        let (object, offset) = memory.futex_key(address);
        Ok(Self { object, offset })
    }

    fn bucket(self) -> usize {
        let mixed = (self.object.rotate_left(17) ^ self.offset).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as usize % BUCKETS
    }
}

impl Waiter {
    fn new(task: &Arc<Task>, key: Key, bitset: u32, requeue_to: Option<Key>) -> Arc<Self> {
        Arc::new(Self { task: task.clone(), key: SpinLock::new(key), bitset, woken: AtomicBool::new(false), requeue_to })
    }

    fn enqueue(self: &Arc<Self>) {
        let key = *self.key.lock();
        TABLE[key.bucket()].lock().push_back(self.clone());
    }

    fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }

    /// Leaves the queue. False: somebody woke it before.
    fn withdraw(self: &Arc<Self>) -> bool {
        loop {
            let key = *self.key.lock();
            let mut queue = TABLE[key.bucket()].lock();
            if *self.key.lock() != key {
                continue;
            }
            let found = queue.iter().position(|other| Arc::ptr_eq(other, self));
            return found.is_some_and(|index| queue.remove(index).is_some());
        }
    }

    fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        sched::wake(&self.task);
    }
}

/// FUTEX_WAIT, FUTEX_WAIT_BITSET: sleeps while the word is `expected`. EAGAIN: it is not. EINTR: a signal.
pub fn wait(task: &Arc<Task>, address: u64, private: bool, expected: u32, bitset: u32, deadline: Option<u64>) -> SysResult {
    if bitset == 0 {
        return Err(EINVAL);
    }
    let waiter = Waiter::new(task, Key::of(task, address, private)?, bitset, None);
    waiter.enqueue();
    sleep_on(task, &[(waiter, address, expected)], deadline).map(|_| 0)
}

/// futex_waitv(2): (address, private, expected) each; gives the index of one that was woken.
pub fn wait_many(task: &Arc<Task>, words: &[(u64, bool, u32)], deadline: Option<u64>) -> SysResult {
    let mut waiters = Vec::with_capacity(words.len());
    for &(address, private, expected) in words {
        waiters.push((Waiter::new(task, Key::of(task, address, private)?, u32::MAX, None), address, expected));
    }
    for (waiter, _, _) in &waiters {
        waiter.enqueue();
    }
    sleep_on(task, &waiters, deadline)
}

/// The waiters are queued: looks at the words, sleeps, takes the waiters out again. Gives the index of a woken one.
fn sleep_on(task: &Arc<Task>, waiters: &[(Arc<Waiter>, u64, u32)], deadline: Option<u64>) -> SysResult {
    let mut failure = None;
    for (_, address, expected) in waiters {
        match user::load_u32(*address) {
            Ok(value) if value == *expected => {}
            Ok(_) => failure = Some(EAGAIN),
            Err(errno) => failure = Some(errno),
        }
        if failure.is_some() {
            break;
        }
    }
    while failure.is_none() && !waiters.iter().any(|(waiter, _, _)| waiter.is_woken()) {
        if task.interrupted(Interruptible::Yes) {
            failure = Some(EINTR);
        } else if deadline.is_some_and(|at| hal::time::monotonic() >= at) {
            failure = Some(ETIMEDOUT);
        } else {
            sched::sleep(Interruptible::Yes, deadline, || waiters.iter().any(|(waiter, _, _)| waiter.is_woken()));
        }
    }
    // Every waiter leaves its queue; one that somebody woke meanwhile counts more than any failure.
    let mut woken = None;
    for (index, (waiter, _, _)) in waiters.iter().enumerate() {
        if !waiter.withdraw() {
            woken.get_or_insert(index);
        }
    }
    woken.ok_or_else(|| failure.unwrap_or(EAGAIN))
}

/// FUTEX_WAKE, FUTEX_WAKE_BITSET: wakes up to `most`; gives how many.
pub fn wake(key: Key, most: usize, bitset: u32) -> SysResult {
    if bitset == 0 {
        return Err(EINVAL);
    }
    let mut chosen: Vec<Arc<Waiter>> = Vec::new();
    {
        let mut queue = TABLE[key.bucket()].lock();
        let mut index = 0;
        while index < queue.len() && chosen.len() < most {
            let waiter = &queue[index];
            if *waiter.key.lock() == key && waiter.bitset & bitset != 0 {
                if waiter.requeue_to.is_some() {
                    return Err(EINVAL);
                }
                chosen.extend(queue.remove(index));
            } else {
                index += 1;
            }
        }
    }
    chosen.iter().for_each(|waiter| waiter.wake());
    Ok(chosen.len())
}

/// FUTEX_REQUEUE, FUTEX_CMP_REQUEUE: wakes up to `most`, moves up to `move_most` of the others to another word. (woken, moved).
pub fn requeue(from: Key, to: Key, most: usize, move_most: usize) -> Result<(usize, usize), Errno> {
    let woken = wake(from, most, u32::MAX)?;
    if from == to {
        return Ok((woken, 0));
    }
    let (first, second) = (from.bucket().min(to.bucket()), from.bucket().max(to.bucket()));
    let mut low = TABLE[first].lock();
    let mut high = (first != second).then(|| TABLE[second].lock());
    let mut moved = Vec::new();
    let source = match &mut high {
        Some(high) if from.bucket() == second => &mut **high,
        _ => &mut *low,
    };
    let mut index = 0;
    while index < source.len() && moved.len() < move_most {
        if *source[index].key.lock() == from {
            moved.extend(source.remove(index));
        } else {
            index += 1;
        }
    }
    let target = match &mut high {
        Some(high) if to.bucket() == second => &mut **high,
        _ => &mut *low,
    };
    let count = moved.len();
    for waiter in moved {
        *waiter.key.lock() = to;
        target.push_back(waiter);
    }
    Ok((woken, count))
}

/// FUTEX_WAKE_OP's operation on the second word (futex(2)): gives the comparison's outcome.
pub fn operate(address: u64, encoded: u32) -> Result<bool, Errno> {
    let operation = encoded >> 28 & 0xf;
    let comparison = encoded >> 24 & 0xf;
    let sign = |value: u32| ((value << 20) as i32) >> 20;
    let mut operand = sign(encoded >> 12 & 0xfff);
    let compared = sign(encoded & 0xfff);
    if operation & 8 != 0 {
        operand = 1i32.wrapping_shl(operand as u32 & 31);
    }
    let operand = operand as u32;
    let mut old = user::load_u32(address)?;
    loop {
        let new = match operation & 7 {
            0 => operand,
            1 => old.wrapping_add(operand),
            2 => old | operand,
            3 => old & !operand,
            4 => old ^ operand,
            _ => return Err(crate::errno::ENOSYS),
        };
        let found = user::compare_exchange_u32(address, old, new)?;
        if found == old {
            break;
        }
        old = found;
    }
    let old = old as i32;
    Ok(match comparison {
        0 => old == compared,
        1 => old != compared,
        2 => old < compared,
        3 => old <= compared,
        4 => old > compared,
        5 => old >= compared,
        _ => return Err(crate::errno::ENOSYS),
    })
}

/// FUTEX_WAIT with a timeout: as [`wait`], but an interruption that no handler sees does not start the time anew.
pub fn wait_relative(task: &Arc<Task>, address: u64, private: bool, expected: u32, bitset: u32, deadline: u64) -> SysResult {
    let result = wait(task, address, private, expected, bitset, Some(deadline));
    if result == Err(EINTR) {
        *task.restart.lock() = Some(crate::time::Restart::Futex { address, private, expected, bitset, deadline });
        return Err(crate::errno::ERESTART_RESTARTBLOCK);
    }
    result
}
