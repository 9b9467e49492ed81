//! The virtual CPU's features: what the host's CPU and KVM have, minus what the library OS does not save or serve.
//! Bit numbers: Intel SDM volume 2A, CPUID.

use std::arch::x86_64::__cpuid_count;

use abi::boot::{CPUID_ANY, CPUID_ENTRIES};
use abi::layout::{CPU_AREAS, CPU_AREA_SIZE, CPU_CPUID};
use kvm_bindings::{kvm_cpuid_entry2, CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX};

use crate::memory::{Fault, GuestMemory};

/// x87, SSE, AVX and the three parts of AVX-512. Not AMX (8 KiB of state a thread), not PKRU.
const XCR0_WANTED: u64 = 0b1110_0111;

/// Highest vCPU count: for the width of an APIC id in the topology leaves.
const TOPOLOGY_SHIFT: u32 = 6;

pub fn xcr0(cpuid: &CpuId) -> u64 {
    let Some(leaf) = find(cpuid, 0xd, 0) else {
        return 0b11;
    };
    let supported = u64::from(leaf.eax) | u64::from(leaf.edx) << 32;
    let mut wanted = supported & XCR0_WANTED;
    // AVX-512 is all of its three bits, and AVX below it.
    if wanted & 0b1110_0000 != 0b1110_0000 || wanted & 0b100 == 0 {
        wanted &= 0b111;
    }
    wanted | 1
}

/// Bytes of an XSAVE area in the standard format: 512 + 64 and each component at its fixed offset.
pub fn xsave_bytes(xcr0: u64) -> u32 {
    (2..63)
        .filter(|bit| xcr0 >> bit & 1 == 1)
        .map(|bit| {
            // CPUID is not privileged, and leaf 0xd exists where XSAVE does.
            let leaf = __cpuid_count(0xd, bit);
            leaf.ebx + leaf.eax
        })
        .fold(576, u32::max)
}

fn find(cpuid: &CpuId, function: u32, index: u32) -> Option<&kvm_cpuid_entry2> {
    cpuid.as_slice().iter().find(|entry| entry.function == function && entry.index == index)
}

pub fn has_xsave(cpuid: &CpuId) -> bool {
    find(cpuid, 1, 0).is_some_and(|leaf| leaf.ecx >> 26 & 1 == 1)
}

/// A paging-based KVM lists only what its instruction emulator knows; but the guest's programs run in ring 3, natively. What they can
/// use is what the CPU itself says, minus what [`trim`] takes out. True: the list was completed in this way.
pub fn complete(cpuid: &mut CpuId) -> bool {
    let native = __cpuid_count(1, 0);
    // XSAVE, and OSXSAVE: the host's kernel has switched it on.
    let native_xsave = native.ecx >> 26 & 3 == 3;
    if has_xsave(cpuid) || !native_xsave || find(cpuid, 0xd, 0).is_none() {
        return false;
    }
    for entry in cpuid.as_mut_slice() {
        // Not for the others: in a virtual machine of somebody else's, each execution is an exit to it.
        if !matches!((entry.function, entry.index), (1 | 7 | 0x8000_0001, _) | (0xd, 1)) {
            continue;
        }
        let leaf = __cpuid_count(entry.function, entry.index);
        match (entry.function, entry.index) {
            // PCID, x2APIC and the like belong to ring 0, and stay as KVM has them; OSXSAVE follows CR4.
            (1, _) => entry.ecx |= leaf.ecx & !(1 << 3 | 1 << 5 | 1 << 6 | 1 << 17 | 1 << 18 | 1 << 21 | 1 << 24 | 1 << 27),
            (7, 0) => {
                // Of the ring-0 features: SMEP, INVPCID, SMAP (EBX), UMIP, LA57 (ECX).
                entry.ebx |= leaf.ebx & !(1 << 7 | 1 << 10 | 1 << 20);
                entry.ecx |= leaf.ecx & !(1 << 2 | 1 << 16);
                entry.edx |= leaf.edx;
            }
            (7, _) => entry.eax |= leaf.eax,
            (0xd, 1) => entry.eax |= leaf.eax & 0b111,
            (0x8000_0001, _) => {
                entry.ecx |= leaf.ecx & (1 | 1 << 5 | 1 << 8); // LAHF, LZCNT, PREFETCHW
                entry.edx |= leaf.edx & (1 << 11 | 1 << 20 | 1 << 27 | 1 << 29);
                // SYSCALL, NX, RDTSCP, long mode
            }
            _ => {}
        }
    }
    true
}

/// Takes out what is not offered; what remains is the same for every vCPU but for the APIC ids.
pub fn trim(cpuid: &mut CpuId, xcr0: u64) {
    // No hypervisor's interface: the library OS needs none, and a program must not find one.
    cpuid.retain(|entry| !(0x4000_0000..0x5000_0000).contains(&entry.function) && !matches!(entry.function, 0x1d | 0x1e));
    for entry in cpuid.as_mut_slice() {
        match (entry.function, entry.index) {
            // MONITOR, x2APIC, TSC deadline timer.
            (1, _) => entry.ecx &= !(1 << 3 | 1 << 21 | 1 << 24),
            (7, 0) => {
                entry.ebx &= !(1 << 14); // MPX
                entry.ecx &= !(1 << 3 | 1 << 4 | 1 << 5 | 1 << 7); // PKU, OSPKE, WAITPKG, CET_SS
                entry.edx &= !(1 << 20 | 1 << 22 | 1 << 24 | 1 << 25); // CET_IBT, AMX
                if xcr0 & 0b1110_0000 == 0 {
                    // Every AVX-512 feature goes with its state.
                    entry.ebx &= !(1 << 16 | 1 << 17 | 1 << 21 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 30 | 1 << 31);
                    entry.ecx &= !(1 << 1 | 1 << 6 | 1 << 11 | 1 << 12 | 1 << 14);
                    entry.edx &= !(1 << 2 | 1 << 3 | 1 << 8 | 1 << 23);
                }
            }
            (7, 1) => entry.eax &= !(1 << 21), // AMX-FP16
            (0xd, 0) => {
                entry.eax = xcr0 as u32;
                entry.edx = (xcr0 >> 32) as u32;
                entry.ecx = xsave_bytes(xcr0);
            }
            (0xd, 1) => {
                // XSAVES and its supervisor states.
                entry.eax &= !(1 << 3);
                entry.ecx = 0;
                entry.edx = 0;
            }
            (0xd, index) if index >= 2 && (index > 62 || xcr0 >> index & 1 == 0) => {
                (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
            }
            _ => {}
        }
    }
}

/// The leaves that name the vCPU: one socket, one thread a core.
/// Writes the table of a vCPU's answers for the guest.
pub fn publish(cpuid: &CpuId, memory: &GuestMemory, index: u32) -> Result<(), Fault> {
    let mut rows: Vec<[u32; 6]> = Vec::new();
    let has_subleaves = |entry: &kvm_cpuid_entry2| entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0;
    for entry in cpuid.as_slice() {
        let subleaf = if has_subleaves(entry) { entry.index } else { CPUID_ANY };
        rows.push([entry.function, subleaf, entry.eax, entry.ebx, entry.ecx, entry.edx]);
    }
    // Subleaves that KVM does not list answer zeros, but for those of topology leaves that have a second level: they stay with the instruction.
    let levels = |leaf: u32| matches!(leaf, 0xb | 0x1f) && find(cpuid, leaf, 1).is_some();
    for entry in cpuid.as_slice().iter().filter(|entry| has_subleaves(entry) && !levels(entry.function)) {
        if rows.last().is_none_or(|last| last[0] != entry.function) {
            rows.push([entry.function, CPUID_ANY, 0, 0, 0, 0]);
        }
    }
    rows.truncate(CPUID_ENTRIES - 1);
    rows.push([CPUID_ANY, 0, 0, 0, 0, 0]);
    let bytes: Vec<u8> = rows.iter().flatten().flat_map(|word| word.to_le_bytes()).collect();
    memory.write_bytes(CPU_AREAS + u64::from(index) * CPU_AREA_SIZE + CPU_CPUID, &bytes)
}

pub fn identify(cpuid: &mut CpuId, index: u32) {
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            1 => entry.ebx = entry.ebx & 0x00ff_ffff | index << 24,
            0xb | 0x1f => {
                entry.edx = index;
                match entry.index {
                    0 => (entry.eax, entry.ebx, entry.ecx) = (0, 1, 1 << 8),
                    1 => (entry.eax, entry.ebx, entry.ecx) = (TOPOLOGY_SHIFT, 1 << TOPOLOGY_SHIFT, 2 << 8 | 1),
                    other => (entry.eax, entry.ebx, entry.ecx) = (0, 0, other),
                }
            }
            0x8000_001e => entry.eax = index,
            _ => {}
        }
    }
}
