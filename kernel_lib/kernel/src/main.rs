//! The guest image: entry point, allocator, panic; everything else is `hal` and `libos`.
#![no_std]
#![no_main]

extern crate alloc;

use core::arch::global_asm;

#[cfg(feature = "selftest")]
mod selftest;

// What the compiler expects a C library to have.
global_asm!(include_str!("memory.s"), options(att_syntax));

#[global_allocator]
static HEAP: hal::heap::Heap = hal::heap::Heap::new();

// The header that the VMM looks for (magic, ring-3 entry), and the ring-0 entry: one IRETQ to the frame that the VMM laid out.
global_asm!(
    ".section .header, \"ax\"",
    ".quad {magic}",
    ".quad litebox_ring3",
    ".globl litebox_ring0",
    "litebox_ring0:",
    "iretq",
    ".text",
    "litebox_ring3:",
    // RDI = vCPU number; RSP = LIBOS address with the alignment of a function entry; GS base = the vCPU's data.
    "cld",
    "xor %ebp, %ebp",
    "jmp litebox_main",
    magic = const abi::boot::MAGIC,
    options(att_syntax)
);

#[no_mangle]
extern "C" fn litebox_main(cpu: usize) -> ! {
    if cpu != 0 {
        hal::cpu::started(cpu)
    }
    // SAFETY: the first instructions of the guest.
    unsafe { hal::cpu::boot() };
    #[cfg(feature = "selftest")]
    {
        use hal::upcall::Upcalls;
        hal::upcall::set(&selftest::SelfTest);
        selftest::SelfTest.boot()
    }
    #[cfg(not(feature = "selftest"))]
    {
        hal::upcall::set(&libos::UPCALLS);
        libos::UPCALLS.start()
    }
}

extern "C" {
    /// By the linker script.
    static image_text_end: u8;
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    hal::panic::panic(format_args!("{info}"), &raw const image_text_end as u64)
}
