//! Landlock: whatever else goes wrong, files are opened below the container's trees only. Best effort: an old kernel has less of it, or none.
//! Numbers: include/uapi/linux/landlock.h.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;
/// EXECUTE to MAKE_SYM, then REFER (ABI 2), TRUNCATE (3), IOCTL_DEV (5).
const ACCESS_BY_ABI: [u64; 6] = [0, 0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff];
/// Of these, what a file can have: EXECUTE, WRITE_FILE, READ_FILE, TRUNCATE, IOCTL_DEV.
const FILE_ACCESS: u64 = 0b111 | 1 << 14 | 1 << 15;
/// ABSTRACT_UNIX_SOCKET and SIGNAL (ABI 6): nothing outside can be reached.
const SCOPES: u64 = 0b11;

#[repr(C)]
#[derive(Default)]
struct Ruleset {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent: i32,
}

pub fn restrict(trees: &[BorrowedFd<'_>]) {
    if let Err(reason) = try_restrict(trees) {
        crate::log::debug(&format!("jail: no Landlock: {reason}"));
    }
}

fn try_restrict(trees: &[BorrowedFd<'_>]) -> Result<(), std::io::Error> {
    let check = |result: libc::c_long| if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) };
    // SAFETY: asks for the version only.
    let abi = check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, CREATE_RULESET_VERSION) })?;
    let access = ACCESS_BY_ABI.get(abi as usize).or(ACCESS_BY_ABI.last()).copied().unwrap_or(0);
    let mut ruleset = Ruleset { handled_access_fs: access, ..Ruleset::default() };
    let mut bytes = 8;
    if abi >= 6 {
        ruleset.scoped = SCOPES;
        bytes = size_of::<Ruleset>();
    }
    // SAFETY: `ruleset` is `bytes` bytes at least; the result is a new descriptor.
    let rules = unsafe {
        let number = check(libc::syscall(libc::SYS_landlock_create_ruleset, &raw const ruleset, bytes, 0))?;
        OwnedFd::from_raw_fd(number as i32)
    };
    for tree in trees {
        let directory = rustix::fs::fstat(tree).is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir());
        let rule = PathBeneath { allowed_access: if directory { access } else { access & FILE_ACCESS }, parent: tree.as_raw_fd() };
        // SAFETY: `rule` lives during the call.
        check(unsafe { libc::syscall(libc::SYS_landlock_add_rule, rules.as_raw_fd(), RULE_PATH_BENEATH, &raw const rule, 0) })?;
    }
    // SAFETY: no memory involved.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) })?;
    Ok(())
}
