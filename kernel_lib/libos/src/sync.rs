//! A mutex that sleeps, for what is held across user memory access or host requests.

use crate::wait::{Interruptible, WaitQueue};
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};
use hal::sync::{SpinGuard, SpinLock};

#[derive(Default)]
pub struct Mutex<T> {
    held: AtomicBool,
    waiting: WaitQueue,
    value: SpinLock<T>,
}

pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// Uncontended always: only the holder of `held` takes it.
    value: Option<SpinGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Self {
        Self { held: AtomicBool::new(false), waiting: WaitQueue::new(), value: SpinLock::new(value) }
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        if self.held.swap(true, Ordering::Acquire) {
            // Not interruptible: holders wait for the host or for memory at most, never for a program.
            let _ = self.waiting.wait(Interruptible::No, None, || (!self.held.swap(true, Ordering::Acquire)).then_some(()));
        }
        MutexGuard { mutex: self, value: Some(self.value.lock()) }
    }

    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        (!self.held.swap(true, Ordering::Acquire)).then(|| MutexGuard { mutex: self, value: Some(self.value.lock()) })
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value.as_ref().expect("held until drop")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("held until drop")
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.value = None;
        self.mutex.held.store(false, Ordering::SeqCst);
        self.mutex.waiting.wake_one();
    }
}
