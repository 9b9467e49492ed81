//! What the host has below /proc/sys/net of the container's network namespace.

use super::request;
use crate::errno::Errno;
use abi::request::setting;
use alloc::string::String;
use alloc::vec::Vec;

/// Most bytes of a text or list.
const MOST: usize = 64 << 10;

/// The mode and the inode number of a file or directory.
pub fn stat(path: &str) -> Result<(u32, u64), Errno> {
    let answer = request::setting(setting::STAT, path, &[], false)?;
    Ok((answer.value as u32, answer.out[0]))
}

fn text(verb: u16, path: &str) -> Result<Vec<u8>, Errno> {
    let mut buffer = alloc::vec![0; 4096];
    loop {
        let bytes = request::setting(verb, path, &buffer, false)?.value as usize;
        if bytes < buffer.len() || bytes >= MOST {
            buffer.truncate(bytes);
            return Ok(buffer);
        }
        buffer.resize(MOST, 0);
    }
}

/// The entries of a directory, as `abi::request::setting::LIST` has them.
pub fn list(path: &str) -> Result<String, Errno> {
    text(setting::LIST, path).map(|list| String::from_utf8_lossy(&list).into_owned())
}

pub fn read(path: &str) -> Result<Vec<u8>, Errno> {
    text(setting::READ, path)
}

/// `administers`: who writes has CAP_NET_ADMIN.
pub fn write(path: &str, value: &[u8], administers: bool) -> Result<(), Errno> {
    request::setting(setting::WRITE, path, value, administers).map(drop)
}
