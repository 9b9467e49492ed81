//! A self-test of `hal` alone (feature `selftest`): the crossings between a program and the library OS, faults, threads, timers and
//! interrupts, each checked and timed, printed to the debug port. Needs a plan with `debug`.

use alloc::format;
use alloc::sync::Arc;
use core::any::Any;
use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};
use hal::context::UserContext;
use hal::cpu;
use hal::frame::{Frame, Page};
use hal::paging::{Flush, PageTable, Rights};
use hal::sync::SpinLock;
use hal::thread::{self, Runnable, Thread};
use hal::time;
use hal::upcall::{Access, Upcalls};

global_asm!(
    ".balign 4096",
    ".globl selftest_program",
    "selftest_program:",
    "mov $200,%eax",
    "syscall",
    "mov $2000,%rbx",
    "1: mov $100,%eax",
    "syscall",
    "cmp $1100,%rax",
    "jne 9f",
    "dec %rbx",
    "jnz 1b",
    "mov $201,%eax",
    "syscall",
    "mov $200000,%rbx",
    "2: mov $100,%eax",
    "lea 3f(%rip),%rcx",
    "jmp *selftest_fast(%rip)",
    "syscall",
    "3: cmp $1100,%rax",
    "jne 9f",
    "dec %rbx",
    "jnz 2b",
    "mov $202,%eax",
    "syscall",
    "mov $0x500000,%rbx",
    "4: movl $7,(%rbx)",
    "add $4096,%rbx",
    "cmp $0x540000,%rbx",
    "jb 4b",
    "mov $203,%eax",
    "syscall",
    "mov $104,%eax", // user copies
    "syscall",
    "ud2",
    "mov $204,%eax",
    "syscall",
    "mov $100000000,%rbx", // interrupted by the timer
    "5: dec %rbx",
    "jnz 5b",
    "mov $205,%eax",
    "syscall",
    "9: mov $99,%eax",
    "syscall",
    ".globl selftest_fast",
    "selftest_fast: .quad 0",
    ".globl selftest_end",
    "selftest_end:",
    options(att_syntax)
);

extern "C" {
    fn selftest_program();
    static selftest_fast: u64;
}

pub struct SelfTest;

struct Body {
    thread: Thread,
}

impl Runnable for Body {
    fn thread(&self) -> &Thread {
        &self.thread
    }
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

static SPACE: SpinLock<Option<PageTable>> = SpinLock::new(None);
static IDLE: SpinLock<Option<Arc<Body>>> = SpinLock::new(None);
static MARK: AtomicU64 = AtomicU64::new(0);
static TICKS: AtomicU64 = AtomicU64::new(0);
/// Progress of the second vCPU.
static OTHER: AtomicU64 = AtomicU64::new(0);
const SHARED: u64 = 0x50_0000;

fn wait_for_other(at_least: u64) {
    while OTHER.load(Ordering::SeqCst) < at_least {
        core::hint::spin_loop();
    }
}

/// A second vCPU: started, flushed from afar, woken.
fn two_cpus() {
    lap("", 0);
    cpu::start(1);
    wait_for_other(1);
    lap("start of a second vCPU", 1);
    let mut space = SPACE.lock();
    let table = space.as_mut().expect("set");
    let mut flush = Flush::new();
    table.unmap(SHARED, SHARED + 4096, &mut flush);
    table.flush(flush);
    drop(space);
    wait_for_other(2);
    lap("page taken away on two vCPUs", 1);
    for round in 3..1003 {
        cpu::kick(1);
        wait_for_other(round);
    }
    lap("wake-up of an idle vCPU", 1000);
}

fn say(text: &str) {
    cpu::debug(text);
    cpu::debug("\n");
}

fn lap(what: &str, times: u64) {
    let now = time::monotonic();
    let before = MARK.swap(now, Ordering::Relaxed);
    if times > 0 {
        say(&format!("{:>10} ns  {what}", (now - before) / times));
    }
    MARK.store(time::monotonic(), Ordering::Relaxed);
}

fn pong(_argument: usize) -> ! {
    loop {
        let main = IDLE.lock().clone().expect("set");
        thread::switch_to(main);
    }
}

impl Upcalls for SelfTest {
    fn boot(&self) -> ! {
        say("self-test");
        let main = Arc::new(Body { thread: Thread::boot() });
        thread::become_idle(main.clone());
        *IDLE.lock() = Some(main);
        let other = Arc::new(Body { thread: Thread::kernel(pong, 0).expect("memory") });
        lap("", 0);
        for _ in 0..1000 {
            thread::switch_to(other.clone());
        }
        lap("switch of kernel threads", 2000);
        for _ in 0..100 {
            cpu::idle(Some(time::monotonic() + 200_000));
        }
        lap("idle with a timer of 200 us", 100);
        for _ in 0..200 {
            cpu::set_timer(time::monotonic() + 1);
            while !cpu::take_timer_fired() {}
        }
        lap("timer interrupt while busy", 200);
        let mut table = PageTable::new(0).expect("memory");
        let mut flush = Flush::new();
        let program = Frame::zeroed().expect("memory");
        // SAFETY: the program's page is part of the image.
        let code = unsafe { core::slice::from_raw_parts(selftest_program as *const u8, 4096) };
        program.write(0, code);
        let slot = core::ptr::addr_of!(selftest_fast) as usize - selftest_program as usize;
        program.write(slot, &hal::entry::fast_entry().to_le_bytes());
        table.map(0x40_0000, Page::Ram(program), Rights::READ_EXECUTE, &mut flush).expect("memory");
        let mut context = UserContext::new(0x40_0000, 0x7fff_0000);
        context.r12 = 0x1234;
        let body = Arc::new(Body { thread: Thread::user(&context, hal::xstate::XState::initial(), 0).expect("memory") });
        body.thread.set_root(Some(table.root().clone()));
        *SPACE.lock() = Some(table);
        thread::switch_to(body);
        if cpu::count() > 1 {
            two_cpus();
        }
        say("ok");
        cpu::exit(0)
    }

    fn cpu_started(&self, _cpu: usize) -> ! {
        let idle = Arc::new(Body { thread: Thread::boot() });
        thread::become_idle(idle.clone());
        idle.thread.set_root(SPACE.lock().as_ref().map(|table| table.root().clone()));
        idle.thread.activate();
        OTHER.store(1, Ordering::SeqCst);
        // Reads a page until it is taken away under us.
        while hal::user::load_u32(SHARED).is_ok() {}
        OTHER.store(2, Ordering::SeqCst);
        loop {
            cpu::idle(None);
            OTHER.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn system_call(&self, context: &mut UserContext) {
        match context.orig_rax {
            100 => context.rax = 1100,
            200 => lap("", 0),
            201 => lap("SYSCALL", 2000),
            202 => lap("patched system call", 200_000),
            203 => lap("page fault", 64),
            104 => {
                hal::user::write(0x51_0000, &0x1122_3344u32).expect("mapped");
                let value: u32 = hal::user::read(0x51_0000).expect("mapped");
                assert!(value == 0x1122_3344);
                hal::user::write(0x60_0000, &5u32).expect("fault brings it in");
                assert!(hal::user::read::<u32>(0x9000_0000).is_err());
                assert!(hal::user::read_string(0x51_0000, 100).expect("mapped") == [0x44, 0x33, 0x22, 0x11]);
            }
            204 => {
                say("#UD stepped over");
                lap("", 0);
                TICKS.store(0, Ordering::Relaxed);
                cpu::set_timer(time::monotonic() + 1_000_000);
            }
            205 => {
                say(&format!("{} ticks while computing", TICKS.load(Ordering::Relaxed)));
                assert!(context.r12 == 0x1234);
                let main = IDLE.lock().clone().expect("set");
                thread::switch_to(main);
            }
            number => panic!("the program failed: {number}"),
        }
    }

    fn page_fault(&self, _context: &mut UserContext, access: Access) {
        assert!(self.copy_fault(access), "{access:x?}");
    }

    fn copy_fault(&self, access: Access) -> bool {
        if access.address == SHARED && OTHER.load(Ordering::SeqCst) != 0 || !(0x50_0000..0x70_0000).contains(&access.address) {
            return false;
        }
        let mut flush = Flush::new();
        let page = Page::Ram(Frame::zeroed().expect("memory"));
        SPACE.lock().as_mut().expect("set").map(access.address & !4095, page, Rights::READ_WRITE, &mut flush).expect("memory");
        true
    }

    fn exception(&self, context: &mut UserContext, vector: u8, _error: u64) {
        assert!(vector == 6, "exception {vector}");
        context.rip += 2;
    }

    fn before_return(&self, _context: &mut UserContext) {
        if cpu::take_timer_fired() {
            TICKS.fetch_add(1, Ordering::Relaxed);
            cpu::set_timer(time::monotonic() + 1_000_000);
        }
    }

    fn bus_error(&self, _context: &mut UserContext, _window_address: u64) {}
}
