//! Settings of the container's network namespace: what the host has below /proc/sys/net.
//!
//! They belong to root, which this process may be to the kernel without any capability: who may set one is decided here.

use std::os::fd::OwnedFd;

use abi::request::setting;
use rustix::fs::{openat2, Dir, FileType, Mode, OFlags};

use super::names::{Name, BENEATH};
use super::sockets::read_text;
use super::{fault, Answer, Errno, Host, Reply, Request};

/// Directories of settings that each network namespace has for itself.
const AREAS: [&[u8]; 5] = [b"bridge", b"core", b"ipv4", b"ipv6", b"unix"];
const MAX_TEXT: u64 = 64 << 10;
const MAX_VALUE: u64 = 4096;

impl Host {
    pub(super) fn setting(&self, request: &Request, verb: u16) -> Answer {
        let [path, path_bytes, buffer, bytes, administers, _] = request.args;
        let name = self.name(path, path_bytes)?;
        let text = match verb {
            setting::STAT => {
                let found = rustix::fs::fstat(self.open_setting(&name, OFlags::PATH)?)?;
                return Ok(Reply::with(found.st_mode.into(), &[found.st_ino]));
            }
            setting::LIST => names(&self.open_setting(&name, OFlags::RDONLY | OFlags::DIRECTORY)?, name.is_empty())?,
            setting::READ => read_text(&self.open_setting(&name, OFlags::RDONLY)?, bytes.min(MAX_TEXT))?,
            setting::WRITE if administers != 1 || !self.network.is_own => return Err(Errno::PERM),
            setting::WRITE => {
                let value = self.text(buffer, bytes, MAX_VALUE)?;
                let write = || rustix::io::write(self.open_setting(&name, OFlags::WRONLY)?, value.as_bytes());
                return Ok(Reply::of(self.administering(!names_module(&name), write)? as u64));
            }
            _ => return Err(Errno::INVAL),
        };
        let part = text.get(..text.len().min(bytes as usize)).unwrap_or_default();
        self.memory.write_bytes(buffer, part).map_err(fault)?;
        Ok(Reply::of(part.len() as u64))
    }

    fn open_setting(&self, name: &Name, flags: OFlags) -> Result<OwnedFd, Errno> {
        let settings = self.network.settings.as_ref().ok_or(Errno::NOENT)?;
        if name.components().next().is_some_and(|area| !AREAS.contains(&area)) {
            return Err(Errno::NOENT);
        }
        let path = if name.is_empty() { c"." } else { name.as_c_str() };
        openat2(settings, path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), BENEATH)
    }
}

/// With the capability, the kernel would load an algorithm that it does not have.
fn names_module(name: &Name) -> bool {
    name.components().last().is_some_and(|last| last.ends_with(b"congestion_control"))
}

/// As `setting::LIST` says; `is_root`: of the areas only.
fn names(directory: &OwnedFd, is_root: bool) -> Result<Vec<u8>, Errno> {
    let mut list = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") || is_root && !AREAS.contains(&name) {
            continue;
        }
        list.extend(format!("{} ", entry.ino()).bytes());
        list.extend(name);
        list.extend(if entry.file_type() == FileType::Directory { &b"/\n"[..] } else { b"\n" });
    }
    Ok(list)
}
