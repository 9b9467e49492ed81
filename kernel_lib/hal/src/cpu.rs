//! The vCPU: who am I, what is pending, interrupts, ring-0 services, translation flushes.

use crate::paging::Root;
use crate::phys;
use crate::sync::SpinLock;
use crate::thread::Runnable;
use crate::{entry, time};
use abi::boot::{BootPage, CpuidEntry, CPUID_ANY, CPUID_ENTRIES};
use abi::counters::Counters;
use abi::layout::{self, vector, MAX_VCPUS};
use alloc::sync::Arc;
use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// A vCPU's data, at `CPU_DATA` of its area; GS base points to it while the library OS runs. The first part is known to `entry.s`.
#[repr(C)]
pub(crate) struct PerCpu {
    pub this: u64,             // 0
    pub user_rsp: u64,         // 8
    pub stack_top: u64,        // 16: end of the running thread's UserContext
    pub saved_rax: u64,        // 24: exceptions
    pub irq_rax: u64,          // 32: interrupts
    pub scratch: [u64; 2],     // 40: exceptions: rbx, rcx
    pub pending: AtomicU32,    // 56
    pub id: u32,               // 60
    pub fault_address: u64,    // 64
    pub irq_scratch: [u64; 3], // 72: rbx, rcx, rdx
    pub irq_vector: u64,       // 96
    /// 1: the running thread has a GS base of its own, to be loaded on the way out.
    pub user_gs_set: u64, // 104
    pub user_gs: u64,          // 112
    /// Of CPUID answers: known to patched programs.
    pub cpuid_table: u64, // 120
    /// Frames for IRETQ into ring 3, built once: system call, exception, page fault, interrupt.
    pub frames: [[u64; 6]; 4], // 128, 176, 224, 272
    /// How many interrupts of another kind came before this one's entry was over.
    pub nested_count: AtomicU32, // 320
    /// Where patched system calls go: known to the vDSO.
    pub fast_entry: u64, // 328
    // Known to Rust only from here on.
    deferred_flush: AtomicU32,
    /// Ends of interrupts that are still to be signalled.
    deferred_ends: AtomicU32,
    timer_deadline: AtomicU64,
    timer_fired: AtomicU32,
    /// 0: translations are used; 1: see [`begin_lazy`]; 2: and some are stale.
    lazy: AtomicU32,
    pub(crate) local: UnsafeCell<Local>,
}

/// What only the vCPU itself touches, never in an interrupt.
pub(crate) struct Local {
    pub current: Option<Arc<dyn Runnable>>,
    pub previous: Option<Arc<dyn Runnable>>,
    pub root: Option<Arc<Root>>,
}

pub(crate) fn area(cpu: usize) -> u64 {
    layout::LIBOS_BASE + layout::CPU_AREAS + cpu as u64 * layout::CPU_AREA_SIZE
}

pub(crate) fn percpu_of(cpu: usize) -> &'static PerCpu {
    assert!(cpu < MAX_VCPUS);
    // SAFETY: layout places it there; initialised by `init_cpu` before the vCPU is used, all-zero (valid) before.
    unsafe { &*((area(cpu) + layout::CPU_DATA) as *const PerCpu) }
}

pub(crate) fn percpu() -> &'static PerCpu {
    let this: u64;
    // SAFETY: GS base is the library OS's whenever Rust code runs.
    unsafe { asm!("mov {}, gs:[0]", out(reg) this, options(nostack, preserves_flags, readonly)) };
    // SAFETY: `this` is the vCPU's own block.
    unsafe { &*(this as *const PerCpu) }
}

/// This vCPU's number.
pub fn id() -> usize {
    percpu().id as usize
}

pub(crate) fn boot_page() -> &'static BootPage {
    // SAFETY: written by the VMM before the first instruction.
    unsafe { phys::at(layout::BOOT_PAGE) }
}

/// vCPUs that may be used, 1..=64.
pub fn count() -> usize {
    (boot_page().vcpus as usize).clamp(1, MAX_VCPUS)
}

pub fn counters() -> &'static Counters {
    // SAFETY: layout places it there, made of atomics.
    unsafe { phys::at(layout::COUNTERS) }
}

pub fn exits_are_cheap() -> bool {
    boot_page().exits_are_cheap != 0
}

/// The first touch of a page in an address space is dear, unless it is RAM whose neighbours come along.
pub fn has_shadow_paging() -> bool {
    boot_page().shadow_paging != 0
}

/// Most bytes of RAM the guest may have, and where the RAM present at start ends (guest-physical).
pub fn memory_limits() -> (u64, u64) {
    (boot_page().ram_limit, boot_page().ram_end)
}

/// End of the DAX window that is backed at start (guest-physical).
pub fn dax_end() -> u64 {
    boot_page().dax_end
}

/// CPUID.1:EDX, what AT_HWCAP says on x86.
pub fn feature_bits() -> u32 {
    cpuid(1, 0)[3]
}

/// Whether there are tables of CPUID's answers. Programs' code finds its vCPU's by [`CPUID_TABLE_OF_GS`] (it is readable in ring 3).
pub fn has_cpuid_tables() -> bool {
    known_cpuid()[0].answer[0] != 0
}

/// Offset from GS base, as long as it is the library OS's, of the address of the vCPU's table of CPUID's answers.
pub const CPUID_TABLE_OF_GS: u32 = core::mem::offset_of!(PerCpu, cpuid_table) as u32;

fn known_cpuid() -> &'static [CpuidEntry; CPUID_ENTRIES] {
    // SAFETY: written by the VMM before the vCPU's first instruction; all zeros if it did not.
    unsafe { phys::at(layout::CPU_AREAS + id() as u64 * layout::CPU_AREA_SIZE + layout::CPU_CPUID) }
}

/// CPUID: EAX, EBX, ECX, EDX of a leaf and subleaf, from the VMM's table if it is there; else by the instruction in ring 0 (in ring 3 it
/// may be a fault, see the VMM).
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    if has_cpuid_tables() {
        // Programs look for a hypervisor's interface at 256 places (the Java VM at each start), and the VMM gives them none.
        if (0x4000_0000..0x5000_0000).contains(&leaf) {
            return [0; 4];
        }
        let mut known = known_cpuid().iter().take_while(|entry| entry.leaf != CPUID_ANY);
        if let Some(entry) = known.find(|entry| entry.leaf == leaf && (entry.subleaf == CPUID_ANY || entry.subleaf == subleaf)) {
            return entry.answer;
        }
    }
    let (mut a, mut b, mut c, mut d): (u64, u64, u64, u64) = (entry::addresses().cpuid, 0, u64::from(subleaf), 0);
    // SAFETY: INT 4 runs `hal_ring0_cpuid`. RBX cannot be named as an operand, so it changes places around it.
    unsafe {
        asm!("xchg {b}, rbx", "int 4", "xchg {b}, rbx", b = inout(reg) b, inout("rax") a, inout("rcx") c, inout("rdx") d, in("rdi") u64::from(leaf));
    }
    [a as u32, b as u32, c as u32, d as u32]
}

pub fn random_seed() -> [u64; 4] {
    boot_page().random_seed
}

/// The postcard-encoded `abi::config::ContainerSpec`.
pub fn boot_config() -> &'static [u8] {
    let bytes = boot_page().config_bytes.min(layout::BOOT_CONFIG_MAX) as usize;
    // SAFETY: written by the VMM before the first instruction, never after.
    unsafe { core::slice::from_raw_parts(phys::pointer(layout::BOOT_CONFIG), bytes) }
}

pub fn out32(port: u16, value: u32) {
    // SAFETY: ports below 0x100 are open to ring 3 and have no effect on memory safety but through the VMM's documented answers.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack)) };
}

/// Ends the VM with the container's exit status.
pub fn exit(status: u8) -> ! {
    loop {
        out32(layout::port::EXIT, u32::from(status));
    }
}

/// Writes to the VMM's debug log.
pub fn debug(text: &str) {
    for byte in text.bytes() {
        out32(layout::port::DEBUG, u32::from(byte));
    }
}

// ---- Local APIC ----

const APIC_EOI: u64 = 0xb0;
/// Which of the vectors from 0xe0 on, all that are used, are in service.
const APIC_IN_SERVICE: u64 = 0x170;
const APIC_SPURIOUS: u64 = 0xf0;
const APIC_ICR_LOW: u64 = 0x300;
const APIC_ICR_HIGH: u64 = 0x310;
const APIC_TIMER: u64 = 0x320;
const APIC_TIMER_COUNT: u64 = 0x380;
const APIC_TIMER_DIVIDE: u64 = 0x3e0;

fn apic_write(register: u64, value: u32) {
    // SAFETY: the local APIC's page is mapped in the direct map.
    unsafe { phys::pointer::<u32>(layout::LOCAL_APIC + register).write_volatile(value) };
}

fn apic_read(register: u64) -> u32 {
    // SAFETY: as in apic_write; what is read here has no side effect.
    unsafe { phys::pointer::<u32>(layout::LOCAL_APIC + register).read_volatile() }
}

fn send(cpu: usize, vector: u8) {
    apic_write(APIC_ICR_HIGH, (cpu as u32) << 24);
    apic_write(APIC_ICR_LOW, 0x4000 | u32::from(vector));
}

/// Makes another vCPU look at what is pending.
pub fn kick(cpu: usize) {
    if cpu == id() {
        percpu().pending.store(1, Ordering::SeqCst);
    } else {
        send(cpu, vector::RESCHEDULE);
    }
}

/// Marks something as pending for this vCPU: `before_return` will be called.
pub fn set_pending() {
    percpu().pending.store(1, Ordering::SeqCst);
}

/// Whether the timer interrupt came since last asked.
pub fn take_timer_fired() -> bool {
    percpu().timer_fired.swap(0, Ordering::AcqRel) != 0
}

/// Arms the timer for `deadline` (monotonic ns) unless it fires earlier anyway.
pub fn set_timer(deadline: u64) {
    let cpu = percpu();
    let now = time::monotonic();
    let armed = cpu.timer_deadline.load(Ordering::Relaxed);
    if armed > now && armed <= deadline {
        return;
    }
    cpu.timer_deadline.store(deadline.max(now + 1), Ordering::Relaxed);
    apic_write(APIC_TIMER_COUNT, time::apic_ticks(deadline.saturating_sub(now)));
}

/// Starts vCPU `cpu`; it calls `Upcalls::cpu_started`.
pub fn start(cpu: usize) {
    prepare(cpu);
    out32(layout::port::START_CPU, cpu as u32);
}

/// Fills a vCPU's area: entry stub, frames. Done by the vCPU that starts it.
fn prepare(cpu: usize) {
    let base = area(cpu);
    let block = base + layout::CPU_DATA;
    let frame = |rip: u64, rsp: u64| [rip, u64::from(layout::USER_CS), layout::RING3_FLAGS, rsp, u64::from(layout::USER_DS), 0];
    let addresses = entry::addresses();
    let frames = [
        frame(addresses.system_call, block),
        frame(addresses.exception, base + layout::CPU_EXCEPTION_TOP),
        frame(addresses.page_fault, base + layout::CPU_EXCEPTION_TOP),
        frame(addresses.interrupt, base + layout::CPU_INTERRUPT_TOP),
    ];
    // SAFETY: the vCPU does not run yet; the block is its own.
    unsafe {
        let p = &mut *(block as *mut PerCpu);
        p.this = block;
        p.id = cpu as u32;
        p.cpuid_table = base + layout::CPU_CPUID;
        p.fast_entry = entry::fast_entry();
        p.frames = frames;
        core::ptr::write(p.local.get(), Local { current: None, previous: None, root: None });
        let mirror = &mut *((block + layout::CPU_MIRROR) as *mut PerCpu);
        mirror.frames[3] = frame(addresses.interrupt_again, base + layout::CPU_MIRROR + layout::CPU_INTERRUPT_TOP);
    }
    entry::write_stub(base + layout::CPU_SYSCALL_STUB, block);
}

/// First thing on vCPU 0: heap's RAM, interrupt table, own area.
///
/// # Safety
/// Once, before anything else of this crate.
pub unsafe fn boot() {
    let boot = boot_page();
    crate::frame::add_ram(boot.image_end, boot.ram_end);
    crate::frame::set_reserve();
    // SAFETY: nobody else uses that range, and this is the only time.
    crate::tables::init(unsafe { crate::frame::Frame::set_aside(layout::PAGE_TABLES, layout::PAGE_TABLES_END) });
    prepare(0);
    entry::write_idt();
    init_apic();
}

/// First thing on another vCPU.
pub fn started(cpu: usize) -> ! {
    init_apic();
    crate::upcall::get().cpu_started(cpu)
}

fn init_apic() {
    apic_write(APIC_SPURIOUS, 0x100 | u32::from(vector::SPURIOUS));
    apic_write(APIC_TIMER_DIVIDE, 0xb);
    apic_write(APIC_TIMER, u32::from(vector::TIMER));
}

// ---- Ring-0 services ----

fn ring0(handler: u64, first: u64, second: u64) {
    counters().ring0_calls.fetch_add(1, Ordering::Relaxed);
    // SAFETY: INT 4 runs one of the nanokernel's few routines (`entry.s`), which preserve every register but RAX and the arguments.
    unsafe { asm!("int 4", inout("rax") handler => _, inout("rdi") first => _, inout("rsi") second => _) };
}

/// A two-byte store of 0 to bytes 2 and 3 of each page, see `tables`.
///
/// # Safety
/// The pages are the caller's, nobody else has them.
pub(crate) unsafe fn unwatch(pages: &[u64]) {
    if !pages.is_empty() {
        ring0(entry::addresses().unwatch, pages.as_ptr() as u64, pages.len() as u64);
    }
}

/// Loads an address space on this vCPU.
pub(crate) fn load_root(root: &Arc<Root>) {
    let cpu = percpu();
    // SAFETY: `local` is this vCPU's, and library-OS code is not preempted.
    let local = unsafe { &mut *cpu.local.get() };
    if local.root.as_ref().is_some_and(|loaded| Arc::ptr_eq(loaded, root)) {
        return;
    }
    root.loaded().fetch_or(1 << cpu.id, Ordering::SeqCst);
    ring0(entry::addresses().load_cr3, root.address(), 0);
    if let Some(old) = local.root.replace(root.clone()) {
        old.loaded().fetch_and(!(1 << cpu.id), Ordering::SeqCst);
    }
}

/// Sleeps until an interrupt, unless one came since [`clear_pending`]. `deadline`: wake by then (monotonic ns).
pub fn idle(deadline: Option<u64>) {
    let cpu = percpu();
    if let Some(deadline) = deadline {
        set_timer(deadline);
    }
    if !is_pending() {
        ring0(entry::addresses().halt, core::ptr::addr_of!(cpu.pending) as u64, 0);
    }
}

/// The idle loop is about to look at everything.
pub fn clear_pending() {
    percpu().pending.store(0, Ordering::SeqCst);
}

/// Whether an interrupt came since [`clear_pending`], or something was marked as pending.
pub fn is_pending() -> bool {
    percpu().pending.load(Ordering::SeqCst) != 0
}

/// From here to [`end_lazy`] this vCPU uses no translation of a program's address: it is not told of those that are to be forgotten.
pub fn begin_lazy() {
    percpu().lazy.store(1, Ordering::SeqCst);
}

pub fn end_lazy() {
    if percpu().lazy.swap(0, Ordering::SeqCst) == 2 {
        flush_here(&[], true);
    }
}

// ---- Flushing translations ----

struct FlushRequest {
    count: AtomicUsize,
    /// Pages to invalidate; count above the array: everything.
    pages: [AtomicU64; 32],
    /// vCPUs that have not answered yet, a bit each: an interrupt that is delivered twice answers once.
    waiting: AtomicU64,
}

static FLUSH: FlushRequest =
    FlushRequest { count: AtomicUsize::new(0), pages: [const { AtomicU64::new(0) }; 32], waiting: AtomicU64::new(0) };
static FLUSH_LOCK: SpinLock<()> = SpinLock::new(());
/// Above this many pages one reload of CR3 is cheaper than single invalidations.
const FEW: usize = 8;

/// Which space is loaded is not asked: invalidating another one's translations is harmless, and an interrupt can find `local.root`
/// half a step behind CR3.
fn flush_here(pages: &[u64], everything: bool) {
    if everything || pages.len() > FEW {
        ring0(entry::addresses().reload, 0, 0);
    } else {
        // An exit a run of neighbours.
        for run in pages.chunk_by(|page, next| page + 0x1000 == *next) {
            ring0(entry::addresses().invalidate, run[0], run.len() as u64);
        }
    }
}

/// Makes removed translations of an address space gone on every vCPU.
pub(crate) fn flush(root: &Arc<Root>, pages: &[u64], everything: bool) {
    let me = id();
    if root.loaded().load(Ordering::SeqCst) & (1 << me) != 0 {
        flush_here(pages, everything);
    }
    if !root.is_loaded_elsewhere(me) {
        return;
    }
    let _guard = FLUSH_LOCK.lock();
    FLUSH.count.store(if everything { usize::MAX } else { pages.len() }, Ordering::Relaxed);
    for (to, &from) in FLUSH.pages.iter().zip(pages) {
        to.store(from, Ordering::Relaxed);
    }
    let loaded = root.loaded().load(Ordering::SeqCst);
    for cpu in (0..count()).filter(|&cpu| cpu != me && loaded & (1 << cpu) != 0) {
        let lazy = &percpu_of(cpu).lazy;
        let stale = lazy.compare_exchange(1, 2, Ordering::SeqCst, Ordering::SeqCst);
        if stale.is_ok() || stale == Err(2) {
            continue;
        }
        FLUSH.waiting.fetch_or(1 << cpu, Ordering::SeqCst);
        send(cpu, vector::TLB_FLUSH);
    }
    while FLUSH.waiting.load(Ordering::Acquire) != 0 {
        core::hint::spin_loop();
    }
}

/// A full memory barrier on every vCPU that may be running a program (membarrier(2)): the flush's interrupt with nothing to invalidate.
/// `started`: vCPUs that run at all. One that idles crosses barriers of its own before it runs a program again.
pub fn synchronize(started: u64) {
    let me = id();
    core::sync::atomic::fence(Ordering::SeqCst);
    let _guard = FLUSH_LOCK.lock();
    FLUSH.count.store(0, Ordering::Relaxed);
    for cpu in (0..count()).filter(|&cpu| cpu != me && started & (1 << cpu) != 0) {
        if percpu_of(cpu).lazy.load(Ordering::SeqCst) != 0 {
            continue;
        }
        FLUSH.waiting.fetch_or(1 << cpu, Ordering::SeqCst);
        send(cpu, vector::TLB_FLUSH);
    }
    while FLUSH.waiting.load(Ordering::Acquire) != 0 {
        core::hint::spin_loop();
    }
}

/// The other side of `flush`, on a vCPU that got the interrupt.
fn answer_flush() {
    let count = FLUSH.count.load(Ordering::Acquire);
    let mut pages = [0; 32];
    for (to, from) in pages.iter_mut().zip(&FLUSH.pages) {
        *to = from.load(Ordering::Relaxed);
    }
    let listed = &pages[..count.min(pages.len())];
    flush_here(listed, count > pages.len());
    FLUSH.waiting.fetch_and(!(1 << id()), Ordering::SeqCst);
}

/// What an interrupt had to put off that came while an exception's frame lay where INT 4 would have written: a flush, and the
/// interrupt's end. Before that end no other interrupt comes, which would not see that the frame is in use.
pub(crate) fn answer_deferred() {
    if percpu().deferred_flush.swap(0, Ordering::AcqRel) != 0 {
        answer_flush();
    }
    let ends = percpu().deferred_ends.swap(0, Ordering::AcqRel);
    if ends != 0 && must_end() {
        for _ in 0..ends {
            apic_write(APIC_EOI, 0);
        }
    }
}

/// Whether ends of interrupts are to be signalled. The paging-based KVM ends an interrupt when it delivers it (docs/decisions/0008), and
/// the signal would be an exit for nothing. Asked while an interrupt is handled: on any other APIC it is in service now, and one such
/// answer is final. To ask costs as much as to signal, so it is asked some times.
fn must_end() -> bool {
    const ENOUGH: u32 = 8;
    static MUST: AtomicBool = AtomicBool::new(false);
    static NOT_IN_SERVICE: AtomicU32 = AtomicU32::new(0);
    if !MUST.load(Ordering::Relaxed) {
        if NOT_IN_SERVICE.load(Ordering::Relaxed) >= ENOUGH {
            return false;
        }
        if apic_read(APIC_IN_SERVICE) == 0 {
            NOT_IN_SERVICE.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        MUST.store(true, Ordering::Relaxed);
    }
    true
}

/// Handles an interrupt. `frame_in_use`: an exception's frame still lies on the ring-0 stack, so INT 4 must wait.
///
/// The vector tells what came, but others may have come beneath it (`hal_entry_interrupt_again`): whatever may be due is looked at.
pub(crate) fn interrupt(number: u8, frame_in_use: bool) {
    let cpu = percpu();
    counters().interrupts.fetch_add(1, Ordering::Relaxed);
    let nested = cpu.nested_count.swap(0, Ordering::AcqRel);
    if FLUSH.waiting.load(Ordering::Acquire) & (1 << cpu.id) != 0 {
        cpu.deferred_flush.store(1, Ordering::Release);
    }
    if number == vector::TIMER || nested != 0 {
        cpu.timer_deadline.store(0, Ordering::Relaxed);
        cpu.timer_fired.store(1, Ordering::Release);
    }
    if number != vector::TLB_FLUSH || nested != 0 {
        cpu.pending.store(1, Ordering::SeqCst);
    }
    // One too many does no harm.
    cpu.deferred_ends.fetch_add(nested + u32::from(number != vector::SPURIOUS), Ordering::AcqRel);
    if !frame_in_use {
        answer_deferred();
    }
}

/// The DAX window address under this vCPU whose host file page vanished, once.
pub(crate) fn take_bus_error() -> Option<u64> {
    let value = boot_page().cpus[id()].bus_error.swap(0, Ordering::AcqRel);
    (value != 0).then(|| value - 1)
}

/// Loads the program's own GS base on the way out (arch_prctl ARCH_SET_GS); None: the program has none.
pub fn set_user_gs(base: Option<u64>) {
    let cpu = core::ptr::from_ref(percpu()).cast_mut();
    // SAFETY: fields that only this vCPU uses, outside of entry code.
    unsafe {
        (*cpu).user_gs_set = u64::from(base.is_some());
        (*cpu).user_gs = base.unwrap_or(0);
    }
}
