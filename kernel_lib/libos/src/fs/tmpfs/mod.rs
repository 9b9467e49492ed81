//! tmpfs(5): a file system in guest memory. Also what devtmpfs, /dev/mqueue's root and an overlay's upper layer are made of.

mod directory;
mod file;
mod inode;
mod xattr;

pub use directory::Names;
pub use inode::TmpInode;

use super::inode::{FileSystem, Inode, NewNode};
use crate::errno::{Errno, EINVAL, ENOSPC};
use crate::mm::shmem::Quota;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use linux_abi::fs::{makedev, StatFs, MQUEUE_MAGIC, S_IFDIR, TMPFS_MAGIC};

/// Attributes of the whole file system.
pub struct Super {
    pub device: u64,
    pub magic: u64,
    /// Pages of all files together.
    pub quota: Arc<Quota>,
    most_inodes: u64,
    inodes: AtomicU64,
    next_inode: AtomicU64,
}

pub struct TmpFs {
    shared: Arc<Super>,
    root: Arc<TmpInode>,
    options: String,
}

/// mount(8) options of tmpfs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes.
    pub size: u64,
    pub inodes: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub magic: u64,
}

static NEXT_DEVICE: AtomicU32 = AtomicU32::new(32);

/// A device number of its own for a file system without a device (major 0).
pub fn anonymous_device() -> u64 {
    makedev(0, NEXT_DEVICE.fetch_add(1, Ordering::Relaxed))
}

/// Bytes of memory the guest may have at most.
pub fn memory_limit() -> u64 {
    crate::mm::reclaim::total()
}

impl Default for Options {
    /// Half of the memory, as many inodes as pages, mode 1777.
    fn default() -> Self {
        let half = memory_limit() / 2;
        Self { size: half, inodes: half / 4096, mode: 0o1777, uid: 0, gid: 0, magic: TMPFS_MAGIC }
    }
}

/// "64m", "65536k", "50%" (of the memory) or plain bytes.
fn parse_size(text: &str) -> Option<u64> {
    if let Some(percent) = text.strip_suffix('%') {
        return Some(memory_limit() / 100 * percent.parse::<u64>().ok()?);
    }
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        b't' | b'T' => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_shl(shift)
}

impl Options {
    /// Takes over what is given as "name=value"; unknown names are an error only when `strict`.
    pub fn parse<'o>(options: impl Iterator<Item = &'o str>, strict: bool) -> Result<Self, Errno> {
        let mut parsed = Self::default();
        for option in options.filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match name {
                "size" => {
                    parsed.size = parse_size(value).ok_or(EINVAL)?;
                    if parsed.size == 0 {
                        parsed.size = u64::MAX >> 1;
                    }
                }
                "nr_blocks" => parsed.size = parse_size(value).ok_or(EINVAL)?.saturating_mul(4096),
                "nr_inodes" => parsed.inodes = parse_size(value).filter(|&n| n > 0).unwrap_or(u64::MAX >> 1),
                "mode" => parsed.mode = u32::from_str_radix(value, 8).map_err(|_| EINVAL)? & 0o7777,
                "uid" => parsed.uid = value.parse().map_err(|_| EINVAL)?,
                "gid" => parsed.gid = value.parse().map_err(|_| EINVAL)?,
                _ if strict && !matches!(name, "huge" | "mpol" | "noswap" | "inode64" | "inode32") => return Err(EINVAL),
                _ => {}
            }
        }
        Ok(parsed)
    }

    /// Those of /dev/mqueue, whose files hold no data.
    pub fn mqueue() -> Self {
        Self { size: 0, magic: MQUEUE_MAGIC, ..Self::default() }
    }

    /// What is not the default, as Linux's shmem_show_options has it.
    fn text(&self) -> String {
        let default = Self::default();
        let mut shown = Vec::new();
        if self.magic == TMPFS_MAGIC && self.size != default.size {
            shown.push(format!("size={}k", self.size >> 10));
        }
        if self.magic == TMPFS_MAGIC && self.inodes != default.inodes {
            shown.push(format!("nr_inodes={}", self.inodes));
        }
        if self.mode != default.mode {
            shown.push(format!("mode={:03o}", self.mode));
        }
        for (name, id) in [("uid", self.uid), ("gid", self.gid)] {
            if id != 0 {
                shown.push(format!("{name}={id}"));
            }
        }
        shown.join(",")
    }
}

impl TmpFs {
    pub fn new(options: &Options) -> Arc<Self> {
        let shared = Arc::new(Super {
            device: anonymous_device(),
            magic: options.magic,
            quota: Arc::new(Quota::new(options.size.div_ceil(4096))),
            most_inodes: options.inodes,
            inodes: AtomicU64::new(0),
            next_inode: AtomicU64::new(1),
        });
        let node = NewNode { mode: S_IFDIR | options.mode, uid: options.uid, gid: options.gid, rdev: 0 };
        let root = TmpInode::make_root(&shared, &node);
        Arc::new(Self { shared, root, options: options.text() })
    }

    pub fn root_inode(&self) -> &Arc<TmpInode> {
        &self.root
    }

    /// A regular file without a name.
    pub fn memory_file(&self, node: &NewNode) -> Result<Arc<TmpInode>, Errno> {
        TmpInode::make(&self.shared, node, None)
    }

    /// An inode for a place that its own file system cannot hold (a mount point on a read-only one).
    pub fn stand_in(node: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        let fs = Self::new(&Options { size: 0, inodes: 4, ..Options::default() });
        TmpInode::make(&fs.shared, node, None).map(|inode| inode as Arc<dyn Inode>)
    }
}

impl Super {
    /// Counts another inode and gives it a number. ENOSPC: nr_inodes.
    fn take_inode(&self) -> Result<u64, Errno> {
        let most = self.most_inodes;
        self.inodes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < most).then_some(n + 1)).map_err(|_| ENOSPC)?;
        Ok(self.next_inode.fetch_add(1, Ordering::Relaxed))
    }

    fn give_inode(&self) {
        self.inodes.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn statfs(&self) -> StatFs {
        let (limit, used) = (self.quota.limit(), self.quota.used());
        let inodes = self.inodes.load(Ordering::Relaxed);
        StatFs {
            kind: self.magic,
            bsize: 4096,
            blocks: limit,
            bfree: limit.saturating_sub(used),
            bavail: limit.saturating_sub(used),
            files: self.most_inodes,
            ffree: self.most_inodes.saturating_sub(inodes),
            fsid: [self.device as u32, 0],
            namelen: 255,
            frsize: 4096,
            ..StatFs::default()
        }
    }
}

impl FileSystem for TmpFs {
    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }
    fn statfs(&self) -> Result<StatFs, Errno> {
        Ok(self.shared.statfs())
    }
    fn options(&self) -> &str {
        &self.options
    }
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("64k"), Some(65536));
        assert_eq!(parse_size("1G"), Some(1 << 30));
        assert_eq!(parse_size("12"), Some(12));
        assert_eq!(parse_size("x"), None);
    }
}
