//! Every address and port that guest and VMM agree on.
//!
//! Guest-virtual = guest-physical + [`LIBOS_BASE`] for everything the library OS touches: one PML4 slot (255, the top of the lower
//! half) holds RAM, the local APIC page and the DAX window, is the same in every address space, and is accessible from ring 3.
//! Programs own everything below [`LIBOS_BASE`].
//!
//! ```text
//! guest-physical
//! 0x0000_1000  boot page                       0x0080_0000  page directories of the direct map (one page a GiB)
//! 0x0000_2000  GDT                             0x00c0_0000  submission ring
//! 0x0000_3000  IDT                             0x00c1_0000  event ring
//! 0x0000_4000  boot PML4   0x5000 shared PDPT  0x00c4_0000  request slots
//! 0x0000_6000  counters    0x8000 time page    0x00d0_0000  boot configuration (postcard), up to 3 MiB
//! 0x0020_0000  page tables of programs         0x0100_0000  library OS image, then free memory
//! 0x0040_0000  vCPU areas, 128 KiB each
//! 0xc000_0000..0x1_0000_0000  no memory (local APIC at 0xfee0_0000); RAM goes on at 4 GiB
//! 0x40_0000_0000  DAX window: host files, mapped
//! ```

/// First address that belongs to the library OS; programs live below it (it is their TASK_SIZE).
pub const LIBOS_BASE: u64 = 0x7f80_0000_0000;
pub const PAGE_SIZE: u64 = 4096;

pub const BOOT_PAGE: u64 = 0x1000;
pub const GDT: u64 = 0x2000;
pub const IDT: u64 = 0x3000;
pub const BOOT_PML4: u64 = 0x4000;
/// The page-directory-pointer table behind PML4 slot 255, shared by all address spaces.
pub const SHARED_PDPT: u64 = 0x5000;
pub const COUNTERS: u64 = 0x6000;
pub const TIME_PAGE: u64 = 0x8000;

/// The first page tables of programs: apart from memory that is mapped by huge pages, which a paging-based KVM does only where none are.
pub const PAGE_TABLES: u64 = 0x20_0000;
pub const PAGE_TABLES_END: u64 = CPU_AREAS;

pub const CPU_AREAS: u64 = 0x40_0000;
pub const CPU_AREA_SIZE: u64 = 0x2_0000;
pub const MAX_VCPUS: usize = 32;
/// Offsets within a vCPU's area. The TSS page ends with the I/O permission bitmap.
pub const CPU_TSS: u64 = 0;
pub const CPU_DATA: u64 = 0x1000;
/// Tops of stacks: ring 0 (TSS.RSP0), interrupts (IST 1), and the ring-3 stacks on which exceptions and interrupts arrive.
pub const CPU_RING0_TOP: u64 = 0x3000;
pub const CPU_IST_TOP: u64 = 0x4000;
pub const CPU_EXCEPTION_TOP: u64 = 0x5000;
pub const CPU_INTERRUPT_TOP: u64 = 0x6000;
/// The SYSCALL entry stub of this vCPU (MSR_LSTAR).
pub const CPU_SYSCALL_STUB: u64 = 0x6000;
/// Array of [`crate::boot::CpuidEntry`], one page, written by the VMM before the vCPU's first instruction.
pub const CPU_CPUID: u64 = 0x7000;
/// The same offsets once more from here on: where an interrupt lands that arrives while another's entry is not over (`entry.s`).
pub const CPU_MIRROR: u64 = 0x8000;
pub const CPU_BOOT_STACK_TOP: u64 = 0x2_0000;

pub const DIRECT_MAP_PDS: u64 = 0x80_0000;

pub const SUBMISSION_RING: u64 = 0xc0_0000;
pub const EVENT_RING: u64 = 0xc1_0000;
pub const REQUEST_SLOTS: u64 = 0xc4_0000;
pub const BOOT_CONFIG: u64 = 0xd0_0000;
pub const BOOT_CONFIG_MAX: u64 = 0x30_0000;
pub const IMAGE: u64 = 0x100_0000;

/// RAM is contiguous from 0 to here, then goes on at [`HIGH_RAM`].
pub const LOW_RAM_END: u64 = 0xc000_0000;
pub const HIGH_RAM: u64 = 0x1_0000_0000;
/// Largest guest: everything below the DAX window.
pub const RAM_END_MAX: u64 = DAX_WINDOW;
pub const LOCAL_APIC: u64 = 0xfee0_0000;
pub const DAX_WINDOW: u64 = 0x40_0000_0000;
pub const DAX_WINDOW_END: u64 = 0x7f_c000_0000;
/// Smallest guest memory in bytes: image, vCPU areas, tables and a little room to work in.
pub const MIN_RAM: u64 = 32 << 20;
/// RAM present at start; more is added by [`crate::request::Op::Memory`].
pub const INITIAL_RAM: u64 = 64 << 20;

/// Linux's selectors; the SYSCALL/IRETQ design depends on these exact values.
pub const KERNEL_CS: u16 = 0x10;
pub const KERNEL_DS: u16 = 0x18;
pub const USER_DS: u16 = 0x2b;
pub const USER_CS: u16 = 0x33;
/// RFLAGS with which ring 0 sends the CPU to ring 3: interrupts on, IOPL 3. The TSS's bitmap opens the ports on real hardware and on the
/// paging-based KVM; QEMU's emulated CPU rejects the bitmap of a TSS that is marked busy, as KVM always marks it, but honours IOPL.
pub const RING3_FLAGS: u64 = 0x3202;
/// TSS of vCPU n: selector FIRST_TSS + 16 n.
pub const FIRST_TSS: u16 = 0x40;

/// I/O ports. All of them are below 0x100 and open to ring 3 through the TSS's bitmap.
pub mod port {
    /// ioeventfd, 4 bytes: the submission ring has work and its servers sleep.
    pub const DOORBELL: u16 = 0x20;
    /// Exit: the value is the container's exit status (0..=255); the VM ends.
    pub const EXIT: u16 = 0x21;
    /// Exit: start vCPU number `value`.
    pub const START_CPU: u16 = 0x22;
    /// Exit: serve request slot number `value` now, on this thread (for requests that cannot block, where exits are cheap).
    pub const REQUEST: u16 = 0x23;
    /// Exit: the library OS panicked; the message is in the boot page's panic buffer.
    pub const PANIC: u16 = 0x24;
    /// Exit: one byte for the debug log (only with `debug` in the launch plan).
    pub const DEBUG: u16 = 0x25;
}

/// Interrupt vectors: all in one priority class, so that none nests before the end of interrupt.
pub mod vector {
    pub const TIMER: u8 = 0xe0;
    /// The event ring has work.
    pub const EVENT: u8 = 0xe1;
    pub const RESCHEDULE: u8 = 0xe2;
    pub const TLB_FLUSH: u8 = 0xe3;
    /// A DAX page under this vCPU vanished (truncated file); its address is in [`crate::boot::CpuShared`].
    pub const BUS_ERROR: u8 = 0xe4;
    pub const SPURIOUS: u8 = 0xef;
}
