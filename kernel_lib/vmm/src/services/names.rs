//! Names: (handle, relative path) pairs, resolved so that a guest never leaves the tree it names.
//!
//! A path of one component cannot leave its directory and goes straight into the `…at` call; a longer one has its directory opened with
//! `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)` first. The last component is never followed.
//!
//! The process's working directory is /proc/self/fd (see `jail`): the relative name "17" is descriptor 17 as a magic link, which opens
//! anew, or changes, what an O_PATH descriptor stands for, and nothing else.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{openat2, Mode, OFlags, ResolveFlags};

use super::{fault, Errno, Host};
use crate::handles::Handle;

pub const MAX_PATH: u64 = 4095;
pub const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// A checked relative path; empty: the handle itself.
#[derive(Debug)]
pub struct Name(CString);

impl Name {
    pub fn parse(bytes: Vec<u8>) -> Result<Self, Errno> {
        if !bytes.is_empty() {
            for component in bytes.split(|byte| *byte == b'/') {
                match component {
                    b"" | b"." | b".." => return Err(Errno::INVAL),
                    long if long.len() > 255 => return Err(Errno::NAMETOOLONG),
                    _ => {}
                }
            }
        }
        CString::new(bytes).map(Self).map_err(|_| Errno::INVAL)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn as_c_str(&self) -> &CStr {
        &self.0
    }

    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.as_bytes().split(|byte| *byte == b'/').filter(|component| !component.is_empty())
    }

    /// Directory part (None: the handle itself) and last component.
    fn split(&self) -> (Option<&[u8]>, &CStr) {
        let bytes = self.0.as_bytes_with_nul();
        match self.0.as_bytes().iter().rposition(|byte| *byte == b'/') {
            None => (None, &self.0),
            Some(slash) => {
                let last = bytes.get(slash + 1..).and_then(|part| CStr::from_bytes_with_nul(part).ok());
                (bytes.get(..slash), last.unwrap_or_default())
            }
        }
    }
}

/// The directory of a name, and the name's last component.
pub struct Place {
    directory: Directory,
    last: CString,
}

enum Directory {
    Handle(Arc<Handle>),
    Opened(OwnedFd),
}

impl Place {
    /// The last component; empty: the directory itself (AT_EMPTY_PATH).
    pub fn last(&self) -> &CStr {
        &self.last
    }

    pub fn is_handle(&self) -> bool {
        self.last.is_empty()
    }

    /// A name to be made, moved or removed has to have one.
    pub fn named(self) -> Result<Self, Errno> {
        if self.is_handle() {
            Err(Errno::INVAL)
        } else {
            Ok(self)
        }
    }
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.directory {
            Directory::Handle(handle) => handle.as_fd(),
            Directory::Opened(fd) => fd.as_fd(),
        }
    }
}

/// The name of a descriptor in the working directory.
pub fn descriptor_name(fd: impl AsFd) -> String {
    fd.as_fd().as_raw_fd().to_string()
}

impl Host {
    /// Copies a path out of the guest.
    pub fn name(&self, gpa: u64, bytes: u64) -> Result<Name, Errno> {
        if bytes > MAX_PATH {
            return Err(Errno::NAMETOOLONG);
        }
        let mut buffer = vec![0; bytes as usize];
        self.memory.read_into(gpa, &mut buffer).map_err(fault)?;
        Name::parse(buffer)
    }

    /// Bytes of a name or value with a limit, without a check of what they are.
    pub fn text(&self, gpa: u64, bytes: u64, limit: u64) -> Result<CString, Errno> {
        if bytes > limit {
            return Err(Errno::NAMETOOLONG);
        }
        let mut buffer = vec![0; bytes as usize];
        self.memory.read_into(gpa, &mut buffer).map_err(fault)?;
        CString::new(buffer).map_err(|_| Errno::INVAL)
    }

    pub fn place(&self, handle: u32, gpa: u64, bytes: u64) -> Result<Place, Errno> {
        let handle = self.handles.get(handle)?;
        let name = self.name(gpa, bytes)?;
        place_of(handle, &name)
    }

    /// An O_PATH descriptor of what a place names, not following a symbolic link.
    pub fn open_path(&self, place: &Place) -> Result<OwnedFd, Errno> {
        if place.is_handle() {
            return rustix::io::fcntl_dupfd_cloexec(place, 0);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(place, place.last(), flags, Mode::empty())
    }
}

pub fn place_of(handle: Arc<Handle>, name: &Name) -> Result<Place, Errno> {
    let (directory, last) = name.split();
    let last = last.to_owned();
    let directory = match directory {
        None => Directory::Handle(handle),
        Some(path) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Directory::Opened(openat2_beneath(handle.as_fd(), path, flags, Mode::empty())?)
        }
    };
    Ok(Place { directory, last })
}

/// openat2(2) answers EAGAIN when a rename on the host races with it.
pub fn openat2_beneath(directory: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    for _ in 0..16 {
        match openat2(directory, path, flags, mode, BENEATH) {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_beneath() {
        for bad in ["/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a\0b"] {
            assert!(Name::parse(bad.as_bytes().to_vec()).is_err(), "{bad:?}");
        }
        assert!(Name::parse(vec![b'x'; 256]).is_err());
        let name = Name::parse(b"a/b/c".to_vec()).unwrap();
        assert_eq!(name.split(), (Some(&b"a/b"[..]), c"c"));
        assert_eq!(name.components().count(), 3);
        assert_eq!(Name::parse(b"c".to_vec()).unwrap().split(), (None, c"c"));
        assert!(Name::parse(Vec::new()).unwrap().is_empty());
    }
}
