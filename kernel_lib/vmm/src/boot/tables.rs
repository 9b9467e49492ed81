//! The direct map's page tables, descriptor tables, task-state segments and first stack frames. Page-table arithmetic is pure.

use abi::layout::*;

use crate::backends::Start;
use crate::error::HostError;
use crate::memory::{Fault, GuestMemory};

const HUGE: u64 = 2 << 20;
const GIB: u64 = 1 << 30;
/// Present, writable, user, accessed.
const TABLE: u64 = 0x27;
/// Present, writable, user, accessed, dirty, 2 MiB.
const LEAF: u64 = 0xe7;
/// Present, writable, user, write-through, cache-disabled.
const DEVICE: u64 = 0x1f;
/// The table of the local APIC's 2 MiB stands in the directory page of the last GiB, which lies behind the DAX window.
const APIC_TABLE: u64 = DIRECT_MAP_PDS + 511 * PAGE_SIZE;

/// Of a vCPU's area: all but the boot stack.
const CPU_USED: u64 = CPU_MIRROR + CPU_EXCEPTION_TOP;

const TSS_BYTES: u64 = 0x68;
/// Ports 0..=0xff, a bit each, then the terminating byte of ones.
const BITMAP_BYTES: u64 = 32;
const TSS_LIMIT: u64 = TSS_BYTES + BITMAP_BYTES;

/// Address of the page-directory entry that maps `gpa`.
const fn directory_entry(gpa: u64) -> u64 {
    DIRECT_MAP_PDS + gpa / GIB * PAGE_SIZE + gpa % GIB / HUGE * 8
}

/// Maps `start..end` (2 MiB aligned) in the direct map. Entries only go from absent to present, which needs no flush.
pub fn map_direct(memory: &GuestMemory, start: u64, end: u64) -> Result<(), Fault> {
    let mut gpa = start;
    while gpa < end {
        memory.write(directory_entry(gpa), &(gpa | LEAF))?;
        gpa += HUGE;
    }
    Ok(())
}

/// Everything above the leaves, the local APIC page, and the segments that all vCPUs have.
pub fn write(memory: &GuestMemory) -> Result<(), Fault> {
    memory.write(BOOT_PML4 + 255 * 8, &(SHARED_PDPT | TABLE))?;
    for gib in 0..DAX_WINDOW_END / GIB {
        memory.write(SHARED_PDPT + gib * 8, &((DIRECT_MAP_PDS + gib * PAGE_SIZE) | TABLE))?;
    }
    memory.write(directory_entry(LOCAL_APIC), &(APIC_TABLE | TABLE))?;
    memory.write(APIC_TABLE + LOCAL_APIC % HUGE / PAGE_SIZE * 8, &(LOCAL_APIC | DEVICE))?;

    let flat: [(u16, u64); 5] = [
        (KERNEL_CS, 0x00af_9b00_0000_ffff),
        (KERNEL_DS, 0x00cf_9300_0000_ffff),
        (0x23, 0x00cf_fb00_0000_ffff), // 32-bit user code: SYSRET's arithmetic wants it here
        (USER_DS, 0x00cf_f300_0000_ffff),
        (USER_CS, 0x00af_fb00_0000_ffff),
    ];
    for (selector, descriptor) in flat {
        memory.write(GDT + u64::from(selector & !7), &descriptor)?;
    }
    Ok(())
}

pub const fn area(vcpu: u32) -> u64 {
    CPU_AREAS + vcpu as u64 * CPU_AREA_SIZE
}

const fn tss_selector(vcpu: u32) -> u16 {
    FIRST_TSS + 16 * vcpu as u16
}

/// A busy 64-bit TSS: SDM volume 3A, "TSS Descriptor in 64-bit Mode".
const fn tss_descriptor(base: u64) -> [u64; 2] {
    [TSS_LIMIT | (base & 0xff_ffff) << 16 | 0x8b << 40 | (base >> 24 & 0xff) << 56, base >> 32]
}

fn write_tss(memory: &GuestMemory, vcpu: u32) -> Result<(), Fault> {
    let (tss, virtual_area) = (area(vcpu) + CPU_TSS, LIBOS_BASE + area(vcpu));
    let [low, high] = tss_descriptor(LIBOS_BASE + tss);
    let descriptor = GDT + u64::from(tss_selector(vcpu));
    memory.write(descriptor, &low)?;
    memory.write(descriptor + 8, &high)?;
    // RSP0 and IST1 are at offsets 4 and 0x24: not aligned.
    memory.write_bytes(tss + 4, &(virtual_area + CPU_RING0_TOP).to_le_bytes())?;
    memory.write_bytes(tss + 0x24, &(virtual_area + CPU_IST_TOP).to_le_bytes())?;
    memory.write_bytes(tss + 0x66, &(TSS_BYTES as u16).to_le_bytes())?;
    memory.write(tss + TSS_LIMIT, &0xffu8)
}

/// Writes a vCPU's task state and its first IRET frame, and says in what state it starts: at `ring0_entry`, whose IRETQ goes to `ring3_entry`.
pub fn start(memory: &GuestMemory, vcpu: u32, ring0_entry: u64, ring3_entry: u64) -> Result<Start, HostError> {
    let virtual_area = LIBOS_BASE + area(vcpu);
    memory.populate(area(vcpu), CPU_USED);
    write_tss(memory, vcpu)?;
    let frame = [ring3_entry, u64::from(USER_CS), RING3_FLAGS, virtual_area + CPU_BOOT_STACK_TOP - 8, u64::from(USER_DS)];
    let at = CPU_RING0_TOP - size_of_val(&frame) as u64;
    for (index, word) in frame.iter().enumerate() {
        memory.write(area(vcpu) + at + index as u64 * 8, word)?;
    }
    Ok(Start {
        index: vcpu,
        rip: ring0_entry,
        rsp: virtual_area + at,
        rdi: u64::from(vcpu),
        rsi: LIBOS_BASE + BOOT_PAGE,
        cr3: BOOT_PML4,
        gdt: (LIBOS_BASE + GDT, tss_selector(MAX_VCPUS as u32) - 1),
        idt: (LIBOS_BASE + IDT, 4095),
        tss: (virtual_area + CPU_TSS, TSS_LIMIT as u32, tss_selector(vcpu)),
        gs_base: virtual_area + CPU_DATA,
        syscall_entry: virtual_area + CPU_SYSCALL_STUB,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_follow_the_address() {
        assert_eq!(directory_entry(0), DIRECT_MAP_PDS);
        assert_eq!(directory_entry(LOCAL_APIC), DIRECT_MAP_PDS + 3 * PAGE_SIZE + 503 * 8);
        assert_eq!(directory_entry(DAX_WINDOW), DIRECT_MAP_PDS + 256 * PAGE_SIZE);
        assert!(directory_entry(DAX_WINDOW_END - 1) < APIC_TABLE);
        const { assert!(APIC_TABLE + PAGE_SIZE <= SUBMISSION_RING) };
    }

    #[test]
    fn tss_descriptors_fit_the_table() {
        assert!(u64::from(tss_selector(MAX_VCPUS as u32)) <= PAGE_SIZE);
        let [low, high] = tss_descriptor(0x7f80_1234_5678);
        assert_eq!((low >> 16 & 0xff_ffff | (low >> 56) << 24 | high << 32, low & 0xffff), (0x7f80_1234_5678, TSS_LIMIT));
        const { assert!(CPU_TSS + TSS_LIMIT < CPU_DATA) };
    }
}
