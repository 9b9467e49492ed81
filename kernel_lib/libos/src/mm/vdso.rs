//! The virtual dynamic shared object (vdso(7)): code of ours that programs call for the time without a system call.

use super::map::{Limits, Place, Request};
use super::space::AddressSpace;
use super::vma::Flags;
use super::{Pages, Source, PAGE_SIZE};
use crate::errno::{Errno, EFAULT, ENOMEM};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hal::frame::{Frame, Page};
use hal::paging::Rights;
use hal::sync::Once;

const NAME: &str = "[vdso]";

/// The image's pages, the same in every program.
struct Image {
    frames: Vec<Frame>,
}

impl Pages for Image {
    fn page(&self, index: u64, _write: bool) -> Result<Page, Errno> {
        self.frames.get(index as usize).cloned().map(Page::Ram).ok_or(EFAULT)
    }
    fn around(&self, index: u64, most: usize, _write: bool) -> Vec<Page> {
        self.frames.iter().skip(index as usize).take(most).cloned().map(Page::Ram).collect()
    }
    fn size(&self) -> u64 {
        self.frames.len() as u64 * PAGE_SIZE
    }
    fn identity(&self) -> (u64, u64) {
        (0, u64::MAX)
    }
    fn name(&self) -> String {
        String::from(NAME)
    }
}

impl AddressSpace {
    /// What a signal handler may return to instead of a restorer that makes a system call and does nothing else.
    pub fn sigreturn(&self) -> Option<u64> {
        if !self.patching.load(Ordering::Relaxed) {
            return None;
        }
        let inner = self.inner.lock();
        // The program may have moved it.
        let vma = inner.map.find(inner.layout.sigreturn).filter(|vma| vma.name == NAME && vma.rights.execute)?;
        vma.flags.has(Flags::SPECIAL).then_some(inner.layout.sigreturn)
    }
}

static IMAGE: Once<Option<Arc<Image>>> = Once::new();

fn image() -> Option<&'static Arc<Image>> {
    let make = || {
        let frames = hal::vdso::IMAGE.chunks(PAGE_SIZE as usize).map(|part| {
            let frame = Frame::zeroed()?;
            frame.write(0, part);
            Some(frame)
        });
        Some(Arc::new(Image { frames: frames.collect::<Option<_>>()? }))
    };
    IMAGE.get_or_init(make).as_ref()
}

/// Maps `[vdso]` into a new space: its address.
pub(super) fn map(space: &AddressSpace) -> Result<u64, Errno> {
    let image = image().ok_or(ENOMEM)?;
    space.map(
        Request {
            place: Place::Anywhere(0),
            bytes: image.size(),
            rights: Rights::READ_EXECUTE,
            flags: Flags::SPECIAL,
            source: Source::Object { pages: image.clone(), offset: 0, shared: false, max_rights: Rights::READ_EXECUTE },
            populate: false,
            name: NAME,
        },
        &Limits::NONE,
    )
}
