//! The vDSO (vdso(7)): clock functions that need no system call, and the way back from signal handlers. Compiled by `build.rs` into a shared object of its own that is mapped
//! into every program; it reads the VMM's time page where the library OS has it, at the same address in every address space.
#![no_std]
#![crate_type = "lib"]

use core::arch::{asm, global_asm};
use core::sync::atomic::{fence, AtomicU32, AtomicU64, Ordering};

/// `abi::boot::TimePage` (checked against it by a test in hal).
#[repr(C)]
pub struct TimePage {
    sequence: AtomicU32,
    pad: u32,
    tsc_base: AtomicU64,
    mult: AtomicU64,
    monotonic: Moment,
    realtime: Moment,
}

/// `abi::boot::Moment`.
#[repr(C)]
pub struct Moment {
    seconds: AtomicU64,
    ns: AtomicU64,
}

const TIME_PAGE: u64 = 0x7f80_0000_8000;
/// The vCPUs' areas, and in what GS base points to while the library OS has it, the vCPU's number (`cpu::PerCpu`).
const CPU_AREAS: core::ops::Range<u64> = 0x7f80_0040_0000..0x7f80_0080_0000;
const CPU_NUMBER: u64 = 60;
const FAST_ENTRY: u64 = 328;
const SYS_GETCPU: i64 = 309;
const SYS_CLOCK_GETTIME: i64 = 228;
const SYS_CLOCK_GETRES: i64 = 229;
const BILLION: u64 = 1_000_000_000;

// Where a handler returns to: rt_sigreturn(2) as a patched call as long as GS base is the library OS's, by SYSCALL otherwise. RSP points
// to the frame's ucontext, where debuggers and unwinders find the registers (the DWARF rules of signal(7) handlers, as in Linux's i386
// vDSO). They look for the caller of a handler at the byte before its return address, hence the NOP.
global_asm!(
    ".macro in_frame register, offset",
    ".cfi_escape 0x10, \\register, 3, 0x77, (\\offset & 0x7f) | 0x80, \\offset >> 7",
    ".endm",
    ".section .text.sigreturn, \"ax\", @progbits",
    ".cfi_startproc simple",
    ".cfi_signal_frame",
    ".cfi_escape 0x0f, 4, 0x77, 0xa0, 0x01, 0x06", // CFA: the saved RSP
    "in_frame 0, 144",
    "in_frame 1, 136",
    "in_frame 2, 152",
    "in_frame 3, 128",
    "in_frame 4, 112",
    "in_frame 5, 104",
    "in_frame 6, 120",
    "in_frame 7, 160",
    "in_frame 8, 40",
    "in_frame 9, 48",
    "in_frame 10, 56",
    "in_frame 11, 64",
    "in_frame 12, 72",
    "in_frame 13, 80",
    "in_frame 14, 88",
    "in_frame 15, 96",
    "in_frame 16, 168",
    "nop",
    ".globl sigreturn",
    ".hidden sigreturn",
    ".type sigreturn, @function",
    "sigreturn:",
    "mov $15, %eax",
    "rdgsbase %rdx",
    "movabs ${areas}, %rcx",
    "sub %rcx, %rdx",
    "cmp ${bytes}, %rdx",
    "jae 1f",
    "lea 2f(%rip), %rcx",
    "jmp *%gs:{entry}",
    "1: syscall",
    "2: ud2",
    ".cfi_endproc",
    ".size sigreturn, . - sigreturn",
    areas = const CPU_AREAS.start,
    bytes = const CPU_AREAS.end - CPU_AREAS.start,
    entry = const FAST_ENTRY,
    options(att_syntax)
);

#[repr(C)]
pub struct Pair {
    seconds: i64,
    rest: i64,
}

/// Seconds, and nanoseconds below a second.
#[inline(always)]
fn now(realtime: bool) -> (u64, u64) {
    // SAFETY: the page is mapped in every address space and made of atomics.
    let page = unsafe { &*(TIME_PAGE as *const TimePage) };
    loop {
        let before = page.sequence.load(Ordering::Acquire);
        let tsc_base = page.tsc_base.load(Ordering::Relaxed);
        let mult = page.mult.load(Ordering::Relaxed);
        let base = if realtime { &page.realtime } else { &page.monotonic };
        let (mut seconds, mut ns) = (base.seconds.load(Ordering::Relaxed), base.ns.load(Ordering::Relaxed));
        let (low, high): (u32, u32);
        // SAFETY: RDTSC and a fence touch nothing.
        unsafe { asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nostack, nomem)) };
        fence(Ordering::Acquire);
        if before & 1 == 0 && before == page.sequence.load(Ordering::Relaxed) {
            let ticks = (u64::from(high) << 32 | u64::from(low)).saturating_sub(tsc_base);
            let product: u64;
            // SAFETY: (ticks * mult) >> 32 by a full multiplication; arithmetic only.
            unsafe { asm!("mul {mult}", "shrd rax, rdx, 32", mult = in(reg) mult, inout("rax") ticks => product, out("rdx") _, options(nostack, nomem)) };
            ns += product;
            // The page is seconds old at most. A division takes longer, which the empty instruction keeps the compiler from.
            while ns >= BILLION {
                ns -= BILLION;
                seconds += 1;
                // SAFETY: nothing.
                unsafe { asm!("/* {} */", inout(reg) ns, options(nostack, nomem, preserves_flags)) };
            }
            return (seconds, ns);
        }
        core::hint::spin_loop();
    }
}

fn system_call(number: i64, first: u64, second: u64) -> i64 {
    let result: i64;
    // SAFETY: the kernel checks both arguments.
    unsafe { asm!("syscall", inout("rax") number => result, in("rdi") first, in("rsi") second, out("rcx") _, out("r11") _, options(nostack)) };
    result
}

/// clock_gettime(2).
///
/// # Safety
/// `out` is NULL or valid, as for the system call.
#[no_mangle]
pub unsafe extern "C" fn __vdso_clock_gettime(clock: i32, out: *mut Pair) -> i64 {
    let realtime = match clock {
        // CLOCK_REALTIME, REALTIME_COARSE
        0 | 5 => true,
        // CLOCK_MONOTONIC, MONOTONIC_RAW, MONOTONIC_COARSE, BOOTTIME
        1 | 4 | 6 | 7 => false,
        _ => return system_call(SYS_CLOCK_GETTIME, clock as u64, out as u64),
    };
    let (seconds, ns) = now(realtime);
    // SAFETY: the caller's promise.
    unsafe { out.write(Pair { seconds: seconds as i64, rest: ns as i64 }) };
    0
}

/// gettimeofday(2).
///
/// # Safety
/// As for the system call.
#[no_mangle]
pub unsafe extern "C" fn __vdso_gettimeofday(out: *mut Pair, zone: *mut [i32; 2]) -> i64 {
    let (seconds, ns) = now(true);
    // SAFETY: the caller's promise.
    unsafe {
        if !out.is_null() {
            out.write(Pair { seconds: seconds as i64, rest: (ns / 1000) as i64 });
        }
        if !zone.is_null() {
            zone.write([0, 0]);
        }
    }
    0
}

/// time(2).
///
/// # Safety
/// As for the system call.
#[no_mangle]
pub unsafe extern "C" fn __vdso_time(out: *mut i64) -> i64 {
    let seconds = now(true).0 as i64;
    if !out.is_null() {
        // SAFETY: the caller's promise.
        unsafe { out.write(seconds) };
    }
    seconds
}

/// clock_getres(2).
///
/// # Safety
/// As for the system call.
#[no_mangle]
pub unsafe extern "C" fn __vdso_clock_getres(clock: i32, out: *mut Pair) -> i64 {
    system_call(SYS_CLOCK_GETRES, clock as u64, out as u64)
}

/// getcpu(2).
///
/// # Safety
/// As for the system call.
#[no_mangle]
pub unsafe extern "C" fn __vdso_getcpu(cpu: *mut u32, node: *mut u32, _unused: *mut u8) -> i64 {
    let base: u64;
    // SAFETY: reads a register.
    unsafe { asm!("rdgsbase {}", out(reg) base, options(nostack, nomem)) };
    if !CPU_AREAS.contains(&base) {
        // A program with a GS base of its own.
        return system_call(SYS_GETCPU, cpu as u64, node as u64);
    }
    // SAFETY: what GS base points to is mapped, readable, as long as the library OS is; the outputs are the caller's promise.
    unsafe {
        if !cpu.is_null() {
            cpu.write(((base + CPU_NUMBER) as *const u32).read_volatile());
        }
        if !node.is_null() {
            node.write(0);
        }
    }
    0
}
