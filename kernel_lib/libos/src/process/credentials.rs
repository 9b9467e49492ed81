//! User and group ids, capabilities, securebits (credentials(7), capabilities(7)). Replaced as a whole, never changed in place.
//! The rules of set*uid(2) and execve(2) are pure functions on the structure.

use alloc::vec::Vec;
use linux_abi::capability::{
    CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID, CAP_LINUX_IMMUTABLE, CAP_MAC_OVERRIDE, CAP_MKNOD,
    SECBIT_KEEP_CAPS, SECBIT_NOROOT, SECBIT_NO_SETUID_FIXUP,
};

/// Capabilities that follow the file-system user id (setfsuid(2)).
const FS_CAPABILITIES: u64 = 1 << CAP_CHOWN
    | 1 << CAP_DAC_OVERRIDE
    | 1 << CAP_DAC_READ_SEARCH
    | 1 << CAP_FOWNER
    | 1 << CAP_FSETID
    | 1 << CAP_LINUX_IMMUTABLE
    | 1 << CAP_MKNOD
    | 1 << CAP_MAC_OVERRIDE;

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Credentials {
    pub uid: u32,
    pub euid: u32,
    pub suid: u32,
    pub fsuid: u32,
    pub gid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub fsgid: u32,
    /// Supplementary groups, sorted.
    pub groups: Vec<u32>,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub bounding: u64,
    pub ambient: u64,
    pub securebits: u32,
}

impl Credentials {
    /// Whether capability number `capability` is in effect.
    pub const fn capable(&self, capability: u32) -> bool {
        self.effective & 1 << capability != 0
    }

    /// Whether `group` is the effective group or a supplementary one.
    pub fn in_group(&self, group: u32) -> bool {
        self.egid == group || self.groups.binary_search(&group).is_ok()
    }

    /// As [`Self::in_group`], by the file-system group id.
    pub fn in_fs_group(&self, group: u32) -> bool {
        self.fsgid == group || self.groups.binary_search(&group).is_ok()
    }

    /// capabilities(7), "Effect of user ID changes on capabilities": applied after a change of the ids from `old`.
    pub fn fix_capabilities(&mut self, old: &Self) {
        if self.securebits & SECBIT_NO_SETUID_FIXUP != 0 {
            return;
        }
        let had_root = old.uid == 0 || old.euid == 0 || old.suid == 0;
        let has_root = self.uid == 0 || self.euid == 0 || self.suid == 0;
        if had_root && !has_root {
            if self.securebits & SECBIT_KEEP_CAPS == 0 {
                self.permitted = 0;
                self.effective = 0;
            }
            self.ambient = 0;
        }
        if old.euid == 0 && self.euid != 0 {
            self.effective = 0;
        }
        if old.euid != 0 && self.euid == 0 {
            self.effective = self.permitted;
        }
    }

    /// setfsuid(2): the file-system capabilities go and come with fsuid 0.
    pub fn fix_fs_capabilities(&mut self, old: &Self) {
        if self.securebits & SECBIT_NO_SETUID_FIXUP != 0 {
            return;
        }
        if old.fsuid == 0 && self.fsuid != 0 {
            self.effective &= !FS_CAPABILITIES;
        }
        if old.fsuid != 0 && self.fsuid == 0 {
            self.effective |= self.permitted & FS_CAPABILITIES;
        }
    }

    /// capabilities(7), "Transformation of capabilities during execve()". `owner`: the set-user-ID and set-group-ID owners that take effect;
    /// `file`: the file's capabilities. The second value: AT_SECURE.
    pub fn after_exec(&self, owner: (Option<u32>, Option<u32>), file: Option<FileCapabilities>) -> (Self, bool) {
        let mut new = self.clone();
        new.euid = owner.0.unwrap_or(self.euid);
        new.egid = owner.1.unwrap_or(self.egid);
        let (mut permitted, mut inheritable, mut effective) = file.map_or((0, 0, false), |f| (f.permitted, f.inheritable, f.effective));
        if self.securebits & SECBIT_NOROOT == 0
            && (new.euid == 0 || new.uid == 0)
            && !(file.is_some() && new.uid != 0 && owner.0 == Some(0))
        {
            // "Root's file sets": notionally all; the effective bit only for effective root.
            permitted = u64::MAX;
            inheritable = u64::MAX;
            effective = new.euid == 0;
        }
        let changed_ids = new.euid != self.euid || new.egid != self.egid;
        let has_file_capabilities = file.is_some();
        if changed_ids || has_file_capabilities {
            new.ambient = 0;
        }
        new.permitted = (self.inheritable & inheritable) | (permitted & self.bounding) | new.ambient;
        new.effective = if effective { new.permitted } else { new.ambient };
        new.suid = new.euid;
        new.fsuid = new.euid;
        new.sgid = new.egid;
        new.fsgid = new.egid;
        new.securebits &= !SECBIT_KEEP_CAPS;
        let gained = new.uid != 0 && (effective || new.permitted & !new.ambient != 0);
        let secure = new.euid != new.uid || new.egid != new.gid || gained;
        (new, secure)
    }
}

/// security.capability of an executable file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileCapabilities {
    pub permitted: u64,
    pub inheritable: u64,
    pub effective: bool,
}

impl FileCapabilities {
    /// The extended attribute's value, versions 2 and 3 (capabilities(7)).
    pub fn parse(value: &[u8]) -> Option<Self> {
        let word = |index: usize| Some(u32::from_le_bytes(value.get(index * 4..index * 4 + 4)?.try_into().ok()?));
        let magic = word(0)?;
        if !matches!(magic >> 24, 2 | 3) {
            return None;
        }
        let wide = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        Some(Self { permitted: wide(word(1)?, word(3)?), inheritable: wide(word(2)?, word(4)?), effective: magic & 1 != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linux_abi::capability::ALL;

    fn root() -> Credentials {
        Credentials { effective: ALL, permitted: ALL, bounding: ALL, ..Credentials::default() }
    }

    #[test]
    fn leaving_root_loses_capabilities_unless_kept() {
        let old = root();
        let mut new = Credentials { uid: 1, euid: 1, suid: 1, ..old.clone() };
        new.fix_capabilities(&old);
        assert_eq!((new.effective, new.permitted), (0, 0));
        let old = Credentials { securebits: SECBIT_KEEP_CAPS, ..root() };
        let mut new = Credentials { uid: 1, euid: 1, suid: 1, ..old.clone() };
        new.fix_capabilities(&old);
        assert_eq!((new.effective, new.permitted), (0, ALL));
    }

    #[test]
    fn exec_by_root_gives_what_the_bounding_set_allows() {
        let old = Credentials { bounding: 0xff, effective: 0, permitted: 0, ..Credentials::default() };
        let (new, secure) = old.after_exec((None, None), None);
        assert_eq!((new.effective, new.permitted, secure), (0xff, 0xff, false));
    }

    #[test]
    fn set_user_id_root_program_is_secure() {
        let old = Credentials { uid: 1000, euid: 1000, suid: 1000, bounding: ALL, ..Credentials::default() };
        let (new, secure) = old.after_exec((Some(0), None), None);
        assert_eq!((new.uid, new.euid, new.suid, new.effective, secure), (1000, 0, 0, ALL, true));
        let (new, secure) = old.after_exec((None, None), None);
        assert_eq!((new.effective, new.permitted, secure), (0, 0, false));
    }

    #[test]
    fn ambient_capabilities_survive_exec_of_an_ordinary_file() {
        let old = Credentials { uid: 7, euid: 7, inheritable: 4, permitted: 4, ambient: 4, bounding: ALL, ..Credentials::default() };
        let (new, secure) = old.after_exec((None, None), None);
        assert_eq!((new.effective, new.permitted, secure), (4, 4, false));
    }
}
