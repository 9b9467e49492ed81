//! Closing handles and giving windows back: nobody waits for these. Handles are closed several at a time.

use super::window;
use crate::host::posted::{self, Posted};
use abi::request::Op;
use alloc::vec::Vec;
use hal::host::Request;
use hal::sync::SpinLock;

/// Handles that one CLOSE takes.
const CLOSED_AT_ONCE: usize = 7;

/// Handles to be closed.
static CLOSING: SpinLock<Vec<u32>> = SpinLock::new(Vec::new());

pub fn close(handle: u32) {
    let full = {
        let mut closing = CLOSING.lock();
        closing.push(handle);
        closing.len() >= CLOSED_AT_ONCE
    };
    if full {
        post_closing();
    }
}

fn post_closing() {
    let closing = core::mem::take(&mut *CLOSING.lock());
    for handles in closing.chunks(CLOSED_AT_ONCE) {
        let mut more = [0; 6];
        for (to, from) in more.iter_mut().zip(&handles[1..]) {
            *to = u64::from(*from);
        }
        posted::post(Posted::new(Request::new(Op::Close, handles[0], more)));
    }
}

/// Closes what waits to be closed, and sends what was posted.
pub fn flush() {
    post_closing();
    posted::send();
}

/// Waits until everything is closed and given back; false: there was nothing.
pub fn settle() -> bool {
    let any = posted::any() || !CLOSING.lock().is_empty();
    post_closing();
    posted::settle();
    any
}

pub fn unmap(gpa: u64, bytes: u64, order: usize) {
    let unmap = Request::new(Op::Unmap, 0, [gpa, bytes, 0, 0, 0, 0]);
    posted::post(Posted::new(unmap).then(move |_| window::free(gpa, order)));
}
