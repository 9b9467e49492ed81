//! Labels, ids, limits and capabilities.

use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::error::{During, HostError, Kind};
use crate::plan::Jail;

/// What file ownership needs: the library OS decides who may do what, and then does it for any user of the container.
const FILES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETFCAP);
/// Kept only where the container may use them itself.
const IF_CONTAINER_HAS: CapabilitySet = CapabilitySet::NET_BIND_SERVICE.union(CapabilitySet::NET_RAW).union(CapabilitySet::MKNOD);
/// Kept where the container has it and a network namespace of its own; in effect only during [`as_network_administrator`].
const NETWORK: CapabilitySet = CapabilitySet::NET_ADMIN;
const LAST_CAPABILITY: u32 = 63;

/// Changes the security label of this process, as the plan asks.
pub fn set_label(plan: &Jail) -> Result<(), HostError> {
    if !plan.apparmor.is_empty() {
        let request = format!("changeprofile {}", plan.apparmor);
        let written =
            std::fs::write("/proc/self/attr/apparmor/current", &request).or_else(|_| std::fs::write("/proc/self/attr/current", &request));
        written.during(Kind::Jail, &format!("cannot change to AppArmor profile {:?}", plan.apparmor))?;
    }
    if !plan.selinux.is_empty() {
        std::fs::write("/proc/self/attr/current", &plan.selinux)
            .during(Kind::Jail, &format!("cannot change to SELinux label {:?}", plan.selinux))?;
    }
    Ok(())
}

/// Whether a container with this bounding set may change a network namespace of its own.
pub fn may_change_network(bounding: u64) -> bool {
    CapabilitySet::from_bits_retain(bounding).contains(NETWORK)
}

/// All but CAP_SYS_CHROOT, which goes last ([`drop_chroot`]).
pub fn drop_all(plan: &Jail, bounding: u64, network_is_own: bool) -> Result<(), HostError> {
    set_limits();
    rustix::thread::set_no_new_privs(true).during(Kind::Jail, "no_new_privs")?;
    let network = if network_is_own { NETWORK } else { CapabilitySet::empty() };
    let kept = FILES.union(IF_CONTAINER_HAS & CapabilitySet::from_bits_retain(bounding)).union(network);
    let has = rustix::thread::capabilities(None).during(Kind::Jail, "capget")?;
    // A process without SETPCAP has nothing in its bounding set that it could gain: no_new_privs is set.
    if has.effective.contains(CapabilitySet::SETPCAP) {
        for number in (0..=LAST_CAPABILITY).filter(|number| !kept.contains(CapabilitySet::from_bits_retain(1 << number))) {
            if rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)).is_err() {
                break; // behind the last capability that this kernel has
            }
        }
    }
    change_ids(plan, has.effective)?;
    let left = kept.union(CapabilitySet::SYS_CHROOT) & has.permitted;
    let sets = CapabilitySets { effective: left - NETWORK, permitted: left, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).during(Kind::Jail, "capset")?;
    let _ = rustix::thread::clear_ambient_capability_set();
    // No core dumps with the guest's memory, no tracing by others of the same user.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).during(Kind::Jail, "PR_SET_DUMPABLE")
}

/// Of the calling thread.
pub fn drop_chroot() -> Result<(), HostError> {
    let has = rustix::thread::capabilities(None).during(Kind::Jail, "capget")?;
    let left = has.permitted - CapabilitySet::SYS_CHROOT;
    let sets = CapabilitySets { effective: left - NETWORK, permitted: left, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).during(Kind::Jail, "capset")
}

/// Acts with CAP_NET_ADMIN, as far as this process was left with it: the kernel says what it thinks of the rest.
pub fn as_network_administrator<T>(act: impl FnOnce() -> T) -> T {
    let Ok(usual) = rustix::thread::capabilities(None) else { return act() };
    let raised = CapabilitySets { effective: usual.effective | NETWORK & usual.permitted, ..usual };
    if rustix::thread::set_capabilities(None, raised).is_err() {
        return act();
    }
    let outcome = act();
    if rustix::thread::set_capabilities(None, usual).is_err() {
        std::process::abort(); // no thread goes on with more than it may have
    }
    outcome
}

fn set_limits() {
    let files = rustix::process::getrlimit(Resource::Nofile);
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum });
    let _ = rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// To the plan's user and group, keeping what capabilities there are until they are cut.
fn change_ids(plan: &Jail, effective: CapabilitySet) -> Result<(), HostError> {
    use rustix::fs::{Gid, Uid};
    let (uid, gid) = (Uid::from_raw(plan.uid), Gid::from_raw(plan.gid));
    if effective.contains(CapabilitySet::SETGID) {
        let _ = rustix::thread::set_thread_groups(&[]);
    }
    if gid != rustix::process::getegid() && effective.contains(CapabilitySet::SETGID) {
        rustix::thread::set_thread_res_gid(gid, gid, gid).during(Kind::Jail, "setresgid")?;
    }
    if uid != rustix::process::geteuid() && effective.contains(CapabilitySet::SETUID) {
        rustix::thread::set_keep_capabilities(true).during(Kind::Jail, "PR_SET_KEEPCAPS")?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).during(Kind::Jail, "setresuid")?;
    }
    Ok(())
}
