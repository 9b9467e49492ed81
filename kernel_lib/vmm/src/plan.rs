//! The launch plan (`docs/control-protocol.md`): what the runtime wants this process to be. Unknown fields are errors.

use std::collections::BTreeSet;

use abi::config::ContainerSpec;
use abi::layout;
use serde::Deserialize;

use crate::error::{HostError, Kind};

pub const VERSION: u32 = 1;
pub const MAX_BYTES: u64 = 4 << 20;
/// Handles from here on are given out by the VMM.
pub const PLANNED_HANDLES: u32 = 4096;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub version: u32,
    pub kernel: String,
    #[serde(default)]
    pub kvm: Option<i32>,
    #[serde(default)]
    pub control: Option<i32>,
    #[serde(default)]
    pub ready: Option<i32>,
    #[serde(default)]
    pub log: Option<i32>,
    #[serde(default = "one")]
    pub vcpus: u32,
    pub memory: u64,
    #[serde(default)]
    pub autostart: bool,
    #[serde(default)]
    pub descriptors: Vec<Descriptor>,
    #[serde(default)]
    pub jail: Jail,
    #[serde(default)]
    pub debug: bool,
    #[serde(default)]
    pub session: Option<Session>,
    #[serde(default)]
    pub container: ContainerSpec,
}

fn one() -> u32 {
    1
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Descriptor {
    pub handle: u32,
    pub fd: i32,
    pub kind: DescriptorKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DescriptorKind {
    /// O_PATH root of a detached mount.
    Tree,
    /// Standard input or output: pipe, FIFO, terminal, socket, file.
    Stream,
}

/// What a process that was started ahead of its plan still has to become: absent when it was started so.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// A new one; else that of the runtime, which forwards the signals of its keyboard.
    pub new: bool,
    /// The controlling terminal of a new one.
    #[serde(default)]
    pub terminal: Option<i32>,
    /// Files `tasks` of the cgroups (v1) that the runtime has not put it into.
    #[serde(default)]
    pub cgroups: Vec<i32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jail {
    pub enabled: bool,
    pub namespaces: Vec<Namespace>,
    pub uid: u32,
    pub gid: u32,
    pub apparmor: String,
    pub selinux: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    #[serde(rename = "type")]
    pub kind: NamespaceKind,
    #[serde(default)]
    pub fd: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    Network,
    Ipc,
    Uts,
    Mount,
    Pid,
    User,
    Cgroup,
    Time,
}

impl Plan {
    /// Parses and checks a plan. Pure: opens nothing.
    pub fn parse(text: &[u8]) -> Result<Self, HostError> {
        if text.len() as u64 > MAX_BYTES {
            return Err(HostError::plan(format!("launch plan is longer than {MAX_BYTES} bytes")));
        }
        let mut plan: Self = serde_json::from_slice(text).map_err(|error| HostError::plan(format!("launch plan: {error}")))?;
        if plan.version != VERSION {
            return Err(HostError::plan(format!("launch plan: version {} (this VMM speaks {VERSION})", plan.version)));
        }
        if plan.vcpus == 0 || plan.vcpus as usize > layout::MAX_VCPUS {
            return Err(HostError::plan(format!("launch plan: vcpus {} is not in 1..={}", plan.vcpus, layout::MAX_VCPUS)));
        }
        if plan.memory < layout::MIN_RAM {
            return Err(HostError::new(
                Kind::Memory,
                format!("memory limit {} is below the {} bytes that a guest needs", plan.memory, layout::MIN_RAM),
            ));
        }
        plan.memory =
            plan.memory.div_ceil(2 << 20).saturating_mul(2 << 20).min(layout::RAM_END_MAX - (layout::HIGH_RAM - layout::LOW_RAM_END));
        plan.check_descriptors()?;
        if plan.control.is_none() {
            plan.autostart = true;
        }
        Ok(plan)
    }

    fn check_descriptors(&self) -> Result<(), HostError> {
        let mut handles = BTreeSet::new();
        let mut numbers = BTreeSet::new();
        let named = [self.kvm, self.control, self.ready].into_iter().flatten();
        let namespaces = self.jail.namespaces.iter().filter_map(|namespace| namespace.fd);
        for number in named.chain(namespaces) {
            if number < 0 || !numbers.insert(number) {
                return Err(HostError::plan(format!("launch plan: descriptor {number} is named twice or negative")));
            }
        }
        for descriptor in &self.descriptors {
            if descriptor.handle >= PLANNED_HANDLES || !handles.insert(descriptor.handle) {
                return Err(HostError::plan(format!(
                    "launch plan: handle {} is used twice or not below {PLANNED_HANDLES}",
                    descriptor.handle
                )));
            }
            // Several handles may name one descriptor (stdout and stderr of a shell), but none that means something else here.
            if descriptor.fd < 0 || numbers.contains(&descriptor.fd) {
                return Err(HostError::plan(format!(
                    "launch plan: descriptor {} of handle {} is in use",
                    descriptor.fd, descriptor.handle
                )));
            }
        }
        let known = |handle: u32| handles.contains(&handle);
        for mount in &self.container.mounts {
            if matches!(mount.kind.as_str(), "host" | "overlay") && !known(mount.handle) {
                return Err(HostError::plan(format!(
                    "launch plan: mount {} names handle {}, which no descriptor has",
                    mount.destination, mount.handle
                )));
            }
        }
        let process = &self.container.process;
        for handle in process.stdio.iter().chain(&process.extra_files) {
            if *handle != u32::MAX && !known(*handle) {
                return Err(HostError::plan(format!("launch plan: process names handle {handle}, which no descriptor has")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Plan, HostError> {
        Plan::parse(text.as_bytes())
    }

    const STDIO: &str = r#"{"process":{"stdio":[4294967295,4294967295,4294967295]}}"#;

    #[test]
    fn smallest_plan_starts_at_once() {
        let plan = parse(&format!(r#"{{"version":1,"kernel":"/k","memory":67108865,"container":{STDIO}}}"#)).unwrap();
        assert!(plan.autostart);
        assert_eq!((plan.vcpus, plan.memory), (1, 66 << 20));
    }

    #[test]
    fn unknown_fields_and_versions_are_refused() {
        assert!(parse(r#"{"version":1,"kernel":"/k","memory":67108864,"colour":1}"#).is_err());
        assert!(parse(&format!(r#"{{"version":2,"kernel":"/k","memory":67108864,"container":{STDIO}}}"#)).is_err());
        assert!(parse("").is_err());
    }

    #[test]
    fn handles_must_exist_and_be_unique() {
        assert!(parse(r#"{"version":1,"kernel":"/k","memory":67108864}"#).is_err(), "stdio handle 0 has no descriptor");
        let twice = r#"[{"handle":1,"fd":0,"kind":"stream"},{"handle":1,"fd":1,"kind":"stream"}]"#;
        assert!(parse(&format!(r#"{{"version":1,"kernel":"/k","memory":67108864,"descriptors":{twice},"container":{STDIO}}}"#)).is_err());
    }
}
