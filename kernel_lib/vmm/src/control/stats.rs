//! Statistics: the guest's counters page, and what the VMM itself counted.

use std::sync::atomic::{AtomicU64, Ordering};

use abi::request::TABLE;
use serde_json::{json, Map, Value};

use super::Control;
use crate::backends::signal;
use crate::memory::GuestMemory;

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Counters by name; system calls and failed ones by number, host requests by name, all without those that are 0.
fn guest_counters(memory: &GuestMemory) -> Map<String, Value> {
    let Ok(counters) = memory.counters() else { return Map::new() };
    let named = [
        ("syscalls_patched", &counters.syscalls_patched),
        ("syscalls_unsupported", &counters.syscalls_unsupported),
        ("page_faults", &counters.page_faults),
        ("exceptions", &counters.exceptions),
        ("interrupts", &counters.interrupts),
        ("ring0_calls", &counters.ring0_calls),
        ("doorbells", &counters.doorbells),
        ("context_switches", &counters.context_switches),
        ("frames_free", &counters.frames_free),
        ("frames_total", &counters.frames_total),
        ("oom_kills", &counters.oom_kills),
        ("tasks", &counters.tasks),
    ];
    let mut map: Map<String, Value> = named.iter().map(|(name, counter)| ((*name).to_owned(), get(counter).into())).collect();
    for (name, list) in [("syscalls", &counters.syscalls), ("syscalls_failed", &counters.syscalls_failed)] {
        let counted = list.iter().enumerate().filter(|(_, counter)| get(counter) > 0);
        map.insert(name.to_owned(), Value::Object(counted.map(|(number, counter)| (number.to_string(), get(counter).into())).collect()));
    }
    let requests = TABLE.iter().filter_map(|row| {
        let count = get(counters.requests.get(row.op as usize)?);
        (count > 0).then(|| (row.name.to_owned(), count.into()))
    });
    map.insert("requests".to_owned(), Value::Object(requests.collect()));
    map
}

impl Control {
    pub(super) fn stats(&self) -> Value {
        let Some(parts) = self.parts.get() else { return json!({}) };
        let (Some(host), Some(servers)) = (parts.host.upgrade(), parts.servers.upgrade()) else { return json!({}) };
        let mut map = guest_counters(&host.memory);
        let vcpus = parts.vcpus.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let mut exits = 0;
        let list: Vec<Value> = vcpus
            .iter()
            .map(|status| {
                exits += get(&status.exits);
                json!({
                    "exits": get(&status.exits),
                    "port_exits": get(&status.port_exits),
                    "signals": get(&status.signals),
                    "cpu_ns": signal::thread_cpu_ns(status.thread.load(Ordering::Relaxed)),
                })
            })
            .collect();
        map.insert("exits".to_owned(), exits.into());
        map.insert("vcpus".to_owned(), list.into());
        map.insert("ram_bytes".to_owned(), host.memory.ram_bytes().into());
        map.insert("ram_limit_bytes".to_owned(), host.ram.limit().into());
        map.insert("requests_served".to_owned(), get(&servers.served).into());
        map.insert("server_sleeps".to_owned(), get(&servers.sleeps).into());
        map.insert("server_threads".to_owned(), servers.threads().into());
        map.insert("handles".to_owned(), host.handles.count().into());
        map.insert("events_dropped".to_owned(), host.events.dropped().into());
        Value::Object(map)
    }
}
