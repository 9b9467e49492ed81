//! Entry to the library OS and the way back: the assembly in `entry.s`, and the tables that lead to it.

use crate::context::UserContext;
use crate::cpu;
use crate::phys;
use crate::upcall::{self, Access};
use abi::layout::{self, LIBOS_BASE};
use core::arch::global_asm;
use core::sync::atomic::Ordering;

global_asm!(include_str!("entry.s"), options(att_syntax));

extern "C" {
    fn hal_entry_system_call();
    fn hal_entry_fast();
    fn hal_entry_exception();
    fn hal_entry_page_fault();
    fn hal_entry_interrupt();
    fn hal_entry_interrupt_again();
    fn hal_thread_start();
    fn hal_ring0_load_cr3();
    fn hal_ring0_reload();
    fn hal_ring0_invalidate();
    fn hal_ring0_unwatch();
    fn hal_ring0_halt();
    fn hal_ring0_cpuid();
    static hal_exception_gates: [u64; 32];
    static hal_interrupt_gates: [u64; 32];
    fn hal_gate_ring0_call();
    fn hal_user_access_start();
    fn hal_user_access_end();
    fn hal_user_copy_fixup();
    fn hal_user_other_fixup();
    fn hal_user_copy_end();
}

pub(crate) struct Addresses {
    pub system_call: u64,
    pub exception: u64,
    pub page_fault: u64,
    pub interrupt: u64,
    pub interrupt_again: u64,
    pub thread_start: u64,
    pub load_cr3: u64,
    pub reload: u64,
    pub invalidate: u64,
    pub unwatch: u64,
    pub halt: u64,
    pub cpuid: u64,
}

fn address(function: unsafe extern "C" fn()) -> u64 {
    function as usize as u64
}

pub(crate) fn addresses() -> Addresses {
    Addresses {
        system_call: address(hal_entry_system_call),
        exception: address(hal_entry_exception),
        page_fault: address(hal_entry_page_fault),
        interrupt: address(hal_entry_interrupt),
        interrupt_again: address(hal_entry_interrupt_again),
        thread_start: address(hal_thread_start),
        load_cr3: address(hal_ring0_load_cr3),
        reload: address(hal_ring0_reload),
        invalidate: address(hal_ring0_invalidate),
        unwatch: address(hal_ring0_unwatch),
        halt: address(hal_ring0_halt),
        cpuid: address(hal_ring0_cpuid),
    }
}

/// Where a patched system call jumps to: RAX = number, RCX = return address, the other registers as for SYSCALL, no stack used.
/// The two bytes before the return address must be a SYSCALL instruction: an interrupted or restarted call goes back there.
pub fn fast_entry() -> u64 {
    address(hal_entry_fast)
}

/// Writes a vCPU's SYSCALL stub: save RSP, point RSP at the prepared frame, IRETQ. Right in ring 0 (hardware) and ring 3 (paging-based).
pub(crate) fn write_stub(stub: u64, percpu: u64) {
    let mut code = [0u8; 16];
    // mov %rsp, user_rsp(%rip): 7 bytes
    code[0..3].copy_from_slice(&[0x48, 0x89, 0x25]);
    code[3..7].copy_from_slice(&((percpu + 8).wrapping_sub(stub + 7) as u32).to_le_bytes());
    // lea frame(%rip), %rsp: 7 bytes
    code[7..10].copy_from_slice(&[0x48, 0x8d, 0x25]);
    code[10..14].copy_from_slice(&((percpu + 128).wrapping_sub(stub + 14) as u32).to_le_bytes());
    // iretq
    code[14..16].copy_from_slice(&[0x48, 0xcf]);
    // SAFETY: the stub's page belongs to a vCPU that does not run yet.
    unsafe { core::ptr::copy_nonoverlapping(code.as_ptr(), stub as *mut u8, code.len()) };
}

/// Fills the interrupt table: exceptions, INT 4 for ring-0 services (DPL 3), device vectors on IST 1.
pub(crate) fn write_idt() {
    let idt = phys::pointer::<[u64; 2]>(layout::IDT);
    let gate = |handler: u64, dpl: u64, ist: u64| {
        let low =
            (handler & 0xffff) | u64::from(layout::KERNEL_CS) << 16 | ist << 32 | (0x8e | dpl << 5) << 40 | (handler >> 16 & 0xffff) << 48;
        [low, handler >> 32]
    };
    // SAFETY: the table's page is the guest's; no other vCPU runs yet. The gate arrays are made by `entry.s`.
    unsafe {
        for (vector, &handler) in hal_exception_gates.iter().enumerate() {
            let dpl = if vector == 3 { 3 } else { 0 };
            *idt.add(vector) = gate(handler, dpl, 0);
        }
        *idt.add(4) = gate(address(hal_gate_ring0_call), 3, 0);
        for vector in 32..256 {
            let handler = if vector >= 0xe0 { hal_interrupt_gates[vector - 0xe0] } else { hal_interrupt_gates[0x0f] };
            *idt.add(vector) = gate(handler, 0, 1);
        }
    }
}

#[no_mangle]
extern "C" fn hal_system_call(context: &mut UserContext) {
    if context.fast != 0 {
        cpu::counters().syscalls_patched.fetch_add(1, Ordering::Relaxed);
    }
    upcall::get().system_call(context);
}

#[no_mangle]
extern "C" fn hal_pending(context: &mut UserContext) {
    cpu::percpu().pending.store(0, Ordering::SeqCst);
    if let Some(window) = cpu::take_bus_error() {
        upcall::get().bus_error(context, window);
    }
    upcall::get().before_return(context);
}

const fn access(address: u64, error: u64) -> Access {
    Access { address, present: error & 1 != 0, write: error & 2 != 0, execute: error & 16 != 0 }
}

#[no_mangle]
extern "C" fn hal_exception_user(context: &mut UserContext, vector: u64, fault_address: u64, error: u64) {
    cpu::answer_deferred();
    let counters = cpu::counters();
    counters.exceptions.fetch_add(1, Ordering::Relaxed);
    let error = if vector & 0x100 != 0 { error } else { 0 };
    if vector & 0xff == 14 {
        counters.page_faults.fetch_add(1, Ordering::Relaxed);
        upcall::get().page_fault(context, access(fault_address, error));
    } else {
        upcall::get().exception(context, vector as u8, error);
    }
}

#[no_mangle]
extern "C" fn hal_exception_kernel(context: &mut UserContext, vector: u64, fault_address: u64, error: u64) {
    cpu::answer_deferred();
    cpu::counters().page_faults.fetch_add(1, Ordering::Relaxed);
    let in_access = (address(hal_user_access_start)..address(hal_user_access_end)).contains(&context.rip);
    if vector & 0xff == 14 && in_access && fault_address < LIBOS_BASE && upcall::get().copy_fault(access(fault_address, error)) {
        return;
    }
    if in_access {
        let copy = context.rip < address(hal_user_copy_end);
        context.rip = if copy { address(hal_user_copy_fixup) } else { address(hal_user_other_fixup) };
        return;
    }
    panic!(
        "exception {} error {error:#x} address {fault_address:#x} at {:#x} in the library OS, rsp {:#x}",
        vector & 0xff,
        context.rip,
        context.rsp
    );
}

#[no_mangle]
extern "C" fn hal_interrupt(vector: u64, frame_in_use: u64) {
    cpu::interrupt(vector as u8, frame_in_use != 0);
}
