//! Device nodes: what stands behind a device number. Other families register theirs at boot ([`register`]).

use super::file::{FileOps, OpenFile, SeekFrom};
use super::Location;
use crate::errno::{Errno, EINVAL, ENOSPC, ENXIO};
use crate::io::IoBuffer;
use crate::mm::shmem::SharedMemory;
use crate::mm::Pages;
use crate::process::Task;
use crate::SysResult;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::any::Any;
use hal::sync::SpinLock;
use linux_abi::fs::{makedev, S_IFBLK, S_IFMT};

/// Opens a device: the operations, or a whole open file when the device makes its own (a terminal's alias).
pub enum Opened {
    Ops(Arc<dyn FileOps>),
    File(Arc<OpenFile>),
}

/// (task, device number, O_* flags, where its node is)
pub type Opener = fn(&Arc<Task>, u64, u32, &Location) -> Result<Opened, Errno>;

static DEVICES: SpinLock<BTreeMap<u64, Opener>> = SpinLock::new(BTreeMap::new());
static RANGES: SpinLock<BTreeMap<u32, Opener>> = SpinLock::new(BTreeMap::new());

/// From now on `opener` opens character device major:minor.
pub fn register(major: u32, minor: u32, opener: Opener) {
    DEVICES.lock().insert(makedev(major, minor), opener);
}

/// From now on `opener` opens every character device with this major number that has no opener of its own.
pub fn register_major(major: u32, opener: Opener) {
    RANGES.lock().insert(major, opener);
}

/// open(2) of a device node. ENXIO: nothing stands behind it.
pub fn open(task: &Arc<Task>, mode: u32, rdev: u64, flags: u32, location: &Location) -> Result<Opened, Errno> {
    if mode & S_IFMT == S_IFBLK {
        return Err(ENXIO);
    }
    let memory = match (linux_abi::fs::major(rdev), linux_abi::fs::minor(rdev)) {
        (1, 3) => Some(Memory::Null),
        (1, 5) => Some(Memory::Zero),
        (1, 7) => Some(Memory::Full),
        (1, 8 | 9) => Some(Memory::Random),
        _ => None,
    };
    if let Some(memory) = memory {
        return Ok(Opened::Ops(Arc::new(memory)));
    }
    let exact = DEVICES.lock().get(&rdev).copied();
    let opener = exact.or_else(|| RANGES.lock().get(&linux_abi::fs::major(rdev)).copied()).ok_or(ENXIO)?;
    opener(task, rdev, flags, location)
}

/// /dev/null without a node.
pub fn null() -> Arc<dyn FileOps> {
    Arc::new(Memory::Null)
}

/// mem(4), null(4), random(4).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    Null,
    Zero,
    Full,
    Random,
}

impl FileOps for Memory {
    fn seekable(&self) -> bool {
        true
    }

    fn read_at(&self, _file: &OpenFile, buffer: &mut IoBuffer<'_>, _offset: u64) -> SysResult {
        match self {
            Self::Null => Ok(0),
            Self::Zero | Self::Full => buffer.put_zeros(buffer.remaining()),
            Self::Random => {
                let mut done = 0;
                let mut bytes = [0u8; 256];
                while buffer.remaining() > 0 {
                    let count = buffer.remaining().min(bytes.len());
                    crate::process::random::fill(&mut bytes[..count]);
                    match buffer.put(&bytes[..count]) {
                        Ok(moved) => done += moved,
                        Err(errno) if done == 0 => return Err(errno),
                        Err(_) => break,
                    }
                }
                Ok(done)
            }
        }
    }

    fn write_at(&self, _file: &OpenFile, buffer: &mut IoBuffer<'_>, _offset: u64) -> SysResult {
        if *self == Self::Full {
            return Err(ENOSPC);
        }
        let count = buffer.remaining();
        buffer.advance(count);
        Ok(count)
    }

    fn append(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> Result<(usize, u64), Errno> {
        self.write_at(file, buffer, 0).map(|count| (count, 0))
    }

    fn seek(&self, _file: &OpenFile, _current: u64, to: SeekFrom) -> Result<u64, Errno> {
        // null_lseek: every position is the start.
        match to {
            SeekFrom::Data(_) | SeekFrom::Hole(_) => Err(EINVAL),
            _ => Ok(0),
        }
    }

    fn pages(&self, _file: &OpenFile) -> Result<Arc<dyn Pages>, Errno> {
        match self {
            // A mapping of /dev/zero is anonymous memory of its own; its size is bounded by the mapping, not by the object.
            Self::Zero => Ok(SharedMemory::anonymous(1 << 46)),
            _ => Err(crate::errno::ENODEV),
        }
    }

    fn ioctl(&self, _file: &OpenFile, _task: &Arc<Task>, request: u32, argument: u64) -> SysResult {
        const RNDGETENTCNT: u32 = 0x8004_5200;
        match (self, request) {
            (Self::Random, RNDGETENTCNT) => hal::user::write(argument, &256i32).map(|()| 0),
            _ => Err(crate::errno::ENOTTY),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
