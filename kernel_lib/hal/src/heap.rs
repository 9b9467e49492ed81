//! The library OS's heap: size classes over page frames, whole blocks above 2 KiB. Memory is physically contiguous per allocation.

use crate::frame::{Block, MAX_ORDER, PAGE};
use crate::phys;
use crate::sync::SpinLock;
use core::alloc::{GlobalAlloc, Layout};

const CLASSES: [usize; 12] = [16, 32, 48, 64, 96, 128, 192, 256, 512, 768, 1024, 2048];

struct FreeList {
    head: *mut u8,
}

// SAFETY: the pointers lead to heap memory that only the lock's holder touches.
unsafe impl Send for FreeList {}

pub struct Heap {
    classes: [SpinLock<FreeList>; CLASSES.len()],
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

impl Heap {
    pub const fn new() -> Self {
        Self { classes: [const { SpinLock::new(FreeList { head: core::ptr::null_mut() }) }; CLASSES.len()] }
    }
}

fn class_of(layout: &Layout) -> Option<usize> {
    let size = layout.size().max(layout.align());
    CLASSES.iter().position(|&class| class >= size && class % layout.align() == 0)
}

fn order_of(layout: &Layout) -> usize {
    layout.size().max(layout.align()).div_ceil(PAGE).next_power_of_two().trailing_zeros() as usize
}

// SAFETY: blocks come from the frame allocator and are handed out once; alignment follows from class sizes and page alignment.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class_of(&layout) else {
            let order = order_of(&layout);
            if order > MAX_ORDER {
                return core::ptr::null_mut();
            }
            return Block::for_heap(order).map_or(core::ptr::null_mut(), |block| phys::pointer(block.into_address()));
        };
        let mut list = self.classes[class].lock();
        if list.head.is_null() {
            let size = CLASSES[class];
            // Several pages for larger objects, so that less is left over; one when there are only single ones.
            let order = if size > 512 { 2 } else { 0 };
            let found = Block::new(order).map(|block| (block, order)).or_else(|| Block::for_heap(0).map(|block| (block, 0)));
            let Some((block, order)) = found else {
                return core::ptr::null_mut();
            };
            let base: *mut u8 = phys::pointer(block.into_address());
            for index in (0..(PAGE << order) / size).rev() {
                // SAFETY: inside the fresh block; objects are at least 16 bytes and 16-aligned.
                unsafe {
                    let object = base.add(index * size);
                    *object.cast::<*mut u8>() = list.head;
                    list.head = object;
                }
            }
        }
        let object = list.head;
        // SAFETY: a free object's first word links to the next.
        list.head = unsafe { *object.cast::<*mut u8>() };
        object
    }

    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        let Some(class) = class_of(&layout) else {
            drop(Block::from_address(phys::address_of(object), order_of(&layout)));
            return;
        };
        let mut list = self.classes[class].lock();
        // SAFETY: the caller gives the object back; its memory is ours again.
        unsafe { *object.cast::<*mut u8>() = list.head };
        list.head = object;
    }
}
