//! Builds the VM, starts its threads and waits for its end.
//!
//! Order: plan → descriptors adopted, all others closed → VM built, image in it → jail → main thread, which starts the others → guest code.
//! (Started ahead of its plan: the others closed → VM built, image in it, mount namespace → plan, descriptors.) What fails before the guest
//! runs is told on `ready` and in the log, and ends the process with status 125.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use abi::layout::{port, DAX_WINDOW, IMAGE, INITIAL_RAM, PAGE_SIZE, PAGE_TABLES, TIME_PAGE};
use rustix::event::EventfdFlags;

use crate::backends::kvm::KvmMachine;
use crate::backends::{kvm, signal, Machine};
use crate::boot::{self, image, tables};
use crate::clock::Clock;
use crate::control::listen::Listener;
use crate::control::{Control, Parts};
use crate::error::{During, HostError, Kind};
use crate::events::Events;
use crate::handles::{Handle, Handles, Kind as HandleKind};
use crate::jail::seccomp::{Filter, Thread};
use crate::jail::{self, descriptors, Tree};
use crate::launch::Launch;
use crate::memory::GuestMemory;
use crate::plan::{DescriptorKind, Plan};
use crate::ready::Ready;
use crate::server::{Servers, FIRST_SERVERS};
use crate::services::guest_memory::Ram;
use crate::services::window::Window;
use crate::services::Host;
use crate::session;
use crate::vcpu::{Gate, Runner, Status};
use crate::watch::Watcher;

/// Exit status of a VMM that failed itself.
pub const FAILED: i32 = 125;
/// What the library OS surely uses before the first program runs: what the layout has at the bottom, a program's page tables, the image and
/// the RAM behind it (two huge pages). A paging-based KVM maps neighbours at once that are backed already.
const BOOT_RAM: [(u64, u64); 3] = [(0, TIME_PAGE + PAGE_SIZE), (PAGE_TABLES, 64 << 10), (IMAGE, 4 << 20)];
/// Window present at start: enough for the programs and libraries of a small container; the guest asks for more.
const INITIAL_WINDOW: u64 = 256 << 20;
/// The doorbell leaves the guest by an ordinary exit first, and is bound to its event later: taking down a VM right after a port was bound
/// costs 15 ms on Linux 6.18 (its SRCU callbacks are waited for), which is longer than many containers live.
const DOORBELL_DELAY: Duration = Duration::from_millis(100);
const CLOCK_PERIOD: Duration = Duration::from_secs(4);
/// How long pending requests may take once the guest has ended.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);
const STACK_BYTES: usize = 256 << 10;

/// What other threads ask of the main thread.
#[derive(Debug)]
pub enum Notice {
    StartCpu(u32),
    GrowServers,
    /// The guest ended with this exit status.
    Exit(u32),
    Failed(HostError),
    /// Nobody waits for the container to become ready.
    Abandoned,
}

/// `litebox-vmm run --plan`: the exit status of the process.
pub fn run(plan: i32) -> i32 {
    status(Launch::inherited(plan).and_then(|launch| serve(launch, None)))
}

/// `litebox-vmm run --socket`: the same, with all that takes no plan done while there is none.
pub fn run_ahead(socket: i32, kernel: &str) -> i32 {
    status(prepare(socket, kernel))
}

fn status(ended: Result<i32, HostError>) -> i32 {
    ended.unwrap_or_else(|error| {
        crate::log::error(&error.message);
        FAILED
    })
}

fn prepare(socket: i32, kernel: &str) -> Result<i32, HostError> {
    let socket = descriptors::adopt(socket, "--socket")?;
    descriptors::close_others(std::iter::once(socket.as_raw_fd()))?;
    let waited = crate::cgroup::begin_grace_period();
    // What fails now fails with the plan again, which says whom to tell.
    let ahead = match Base::build(None, INITIAL_RAM, kernel) {
        Ok(base) => Some(Ahead { base, cell: jail::prepare(), filters: Filters::compile(false)? }),
        Err(_) => None,
    };
    let Some(launch) = Launch::received(socket)? else { return Ok(0) };
    // The jail wants a process with one thread.
    if let Some(waited) = waited {
        let _ = waited.join();
    }
    serve(launch, ahead)
}

fn serve(mut launch: Launch, ahead: Option<Ahead>) -> Result<i32, HostError> {
    let ready = Arc::new(Ready::new(launch.ready.take()));
    build(launch, ahead, ready.clone()).and_then(run_on_main_thread).or_else(|error| ready.fail(error).map(|()| FAILED))
}

/// What every VM has, whatever its container: address space and memory slots, the guest image, and a vCPU that is about to enter it.
struct Base {
    memory: Arc<GuestMemory>,
    machine: Arc<KvmMachine>,
    vcpu: Box<dyn crate::backends::Vcpu>,
    /// File name of the guest image.
    kernel: String,
    image_end: u64,
    /// Where vCPUs start: ring 0, ring 3.
    entries: (u64, u64),
}

impl Base {
    fn build(device: Option<OwnedFd>, ram_end: u64, kernel: &str) -> Result<Self, HostError> {
        let file = rustix::fs::open(kernel, rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())
            .during(Kind::Kernel, &format!("cannot open the guest image {kernel}"))?;
        let device = match device {
            Some(fd) => fd,
            None => kvm::open()?,
        };
        let memory = Arc::new(GuestMemory::reserve()?);
        let machine = Arc::new(KvmMachine::new(device, memory.clone())?);
        memory.back_ram(0, ram_end)?;
        machine.add_memory(0, ram_end)?;
        memory.publish_ram(ram_end);
        for (gpa, bytes) in BOOT_RAM {
            memory.populate(gpa, bytes);
        }
        machine.add_memory(DAX_WINDOW, INITIAL_WINDOW)?;
        memory.publish_window(DAX_WINDOW + INITIAL_WINDOW)?;

        tables::write(&memory)?;
        tables::map_direct(&memory, 0, ram_end)?;
        tables::map_direct(&memory, DAX_WINDOW, memory.dax_end())?;
        let loaded = image::load(&memory, &file)?;
        let entry = boot::image_entry(&memory)?;
        let vcpu = machine.create_vcpu(&tables::start(&memory, 0, loaded.entry, entry)?)?;
        Ok(Self { memory, machine, vcpu, kernel: kernel.to_owned(), image_end: loaded.end, entries: (loaded.entry, entry) })
    }
}

/// What takes no plan, done while there is none.
struct Ahead {
    base: Base,
    cell: Option<jail::Cell>,
    filters: Filters,
}

/// The process's first thread shows the container's root to the host (see `jail`): the VM is run by another.
fn run_on_main_thread(built: Built) -> Result<i32, HostError> {
    let (confined, first_is_confined) = channel();
    let (enabled, filter) = (built.plan.jail.enabled, built.filters.first.clone());
    let main = std::thread::Builder::new()
        .name("main".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || start(built, &first_is_confined).and_then(Running::wait))
        .during(Kind::Host, "cannot start a thread")?;
    jail::Jailed::confine_first(enabled, &filter)?;
    // It has failed already if it does not listen.
    let _ = confined.send(());
    main.join().unwrap_or_else(|_| Err(HostError::new(Kind::Host, "the main thread panicked")))
}

/// A VM whose vCPU 0 runs.
struct Running {
    host: Arc<Host>,
    servers: Arc<Servers>,
    gate: Arc<Gate>,
    vcpus: Arc<Mutex<Vec<Arc<Status>>>>,
    clock: Clock,
    inbox: Receiver<Notice>,
    notices: Sender<Notice>,
    entries: (u64, u64),
    vcpu_limit: u32,
    started: Vec<bool>,
    asked: Arc<AtomicU64>,
    debug: bool,
    filters: Filters,
}

/// A VM in a jailed process of one thread.
struct Built {
    plan: Plan,
    memory: Arc<GuestMemory>,
    machine: Arc<KvmMachine>,
    vcpu: Box<dyn crate::backends::Vcpu>,
    /// Where vCPUs start: ring 0, ring 3.
    entries: (u64, u64),
    clock: Clock,
    ram_end: u64,
    dax_end: u64,
    doorbell: OwnedFd,
    jailed: jail::Jailed,
    filters: Filters,
    trees: Vec<Tree>,
    streams: Vec<(u32, OwnedFd)>,
    control: Option<OwnedFd>,
    ready: Arc<Ready>,
}

fn build(launch: Launch, ahead: Option<Ahead>, ready: Arc<Ready>) -> Result<Built, HostError> {
    let plan = launch.plan;
    signal::install()?;
    if let Some(session) = &plan.session {
        session::enter(session, launch.terminal.as_ref(), launch.cgroups, plan.log.is_some())?;
    }
    rustix::process::umask(rustix::fs::Mode::empty());
    let ram_end = plan.memory.min(INITIAL_RAM);
    let (base, cell, filters) = ahead.map_or((None, None, None), |ahead| (Some(ahead.base), ahead.cell, Some(ahead.filters)));
    let Base { memory, machine, vcpu, image_end, entries, .. } =
        match base.filter(|base| base.memory.ram_end() == ram_end && base.kernel == plan.kernel) {
            Some(base) => base,
            None => Base::build(launch.kvm, ram_end, &plan.kernel)?,
        };
    let dax_end = memory.dax_end();
    let features = machine.features();
    boot::write_boot_page(&memory, &plan, &features, image_end, dax_end)?;
    let doorbell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).during(Kind::Host, "eventfd")?;
    let clock = Clock::start(&memory, features.tsc_hz, features.apic_timer_hz)?;

    let (mut trees, mut streams) = (Vec::new(), Vec::new());
    for (handle, kind, fd) in launch.handles {
        match kind {
            DescriptorKind::Tree => trees.push(Tree { handle, fd }),
            DescriptorKind::Stream => streams.push((handle, fd)),
        }
    }
    let jailed = jail::enter(&plan.jail, launch.namespaces, &mut trees, &plan.container, cell)?;
    let filters = match filters {
        _ if !plan.jail.enabled => Filters::default(),
        // Those that were made ahead are the usual ones.
        Some(filters) if !jailed.changes_network() => filters,
        _ => Filters::compile(jailed.changes_network())?,
    };
    Ok(Built {
        plan,
        memory,
        machine,
        vcpu,
        entries,
        clock,
        ram_end,
        dax_end,
        doorbell,
        jailed,
        filters,
        trees,
        streams,
        control: launch.control,
        ready,
    })
}

/// On the main thread.
fn start(built: Built, first_is_confined: &Receiver<()>) -> Result<Running, HostError> {
    let Built { plan, memory, machine, vcpu, entries, clock, ram_end, dax_end, doorbell, jailed, filters, trees, streams, control, ready } =
        built;
    let has_proc = jailed.has_proc;
    let network = jailed.confine(&trees)?;
    let features = machine.features();
    let (notices, inbox) = channel();
    let machine: Arc<dyn Machine> = machine;
    let events = Arc::new(Events::new(memory.clone(), machine.clone()));
    let handles = Handles::new(rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX));
    for Tree { handle: number, fd } in trees {
        let mut handle = Handle::new(fd, HandleKind::Tree);
        handle.shared = plan.container.mounts.iter().any(|mount| mount.handle == number && !mount.exclusive);
        handles.plan(number, handle);
    }
    for (number, fd) in streams {
        handles.plan(number, Handle::new(fd, HandleKind::Stream));
    }
    let listening = control;
    let control = Arc::new(Control::new(events.clone(), notices.clone(), ready));
    let host = Arc::new(Host {
        memory: memory.clone(),
        machine,
        watcher: Watcher::new(events.clone())?,
        events,
        handles,
        window: Window::default(),
        ram: Ram::new(plan.memory, ram_end, dax_end),
        control: control.clone(),
        notifications: crate::services::notify::Notifications::default(),
        has_proc,
        network,
    });
    let grow = notices.clone();
    let servers = Arc::new(Servers::new(host.clone(), doorbell, features.tsc_hz, Box::new(move || drop(grow.send(Notice::GrowServers)))));
    if plan.autostart {
        control.start();
    }
    let (gate, vcpus) = (Arc::<Gate>::default(), Arc::default());
    control.attach(Parts {
        host: Arc::downgrade(&host),
        servers: Arc::downgrade(&servers),
        gate: Arc::clone(&gate),
        vcpus: Arc::clone(&vcpus),
    });
    let terminal = controlling_terminal(&plan, &host);
    let listener = Listener::new(control, listening, terminal)?;
    // This thread, too, and with it all those that it starts.
    filters.main.install()?;
    let mut running = Running {
        host,
        servers,
        gate,
        vcpus,
        clock,
        inbox,
        notices,
        entries,
        vcpu_limit: plan.vcpus,
        started: vec![false; plan.vcpus as usize],
        asked: Arc::default(),
        debug: plan.debug,
        filters,
    };
    for _ in 0..FIRST_SERVERS {
        running.spawn_server()?;
    }
    let watcher = running.host.clone();
    if listener.is_needed() {
        spawn("control", &running.filters.control, move || listener.serve())?;
    }
    spawn("readiness", &running.filters.readiness, move || watcher.watcher.serve(|| watcher.window_changed()))?;
    // Before any guest code runs, no thread has a right left.
    first_is_confined.recv().during(Kind::Jail, "the first thread has failed")?;
    running.start_vcpu(0, vcpu)?;
    Ok(running)
}

/// PID 1's standard input, if it has a terminal and that is ours.
fn controlling_terminal(plan: &Plan, host: &Host) -> Option<OwnedFd> {
    let process = &plan.container.process;
    let handle = host.handles.get(process.stdio[0]).ok().filter(|_| process.terminal)?;
    let session = rustix::process::getsid(None).ok()?;
    let ours = rustix::termios::tcgetsid(&*handle).is_ok_and(|owner| owner == session);
    ours.then(|| handle.fd.try_clone().ok()).flatten()
}

/// The allow-lists, compiled once for all threads of a kind; empty without a jail.
#[derive(Default)]
struct Filters {
    first: Filter,
    main: Filter,
    vcpu: Filter,
    server: Filter,
    readiness: Filter,
    control: Filter,
}

impl Filters {
    fn compile(changes_network: bool) -> Result<Self, HostError> {
        Ok(Self {
            first: Filter::new(Thread::First, changes_network)?,
            main: Filter::new(Thread::Main, changes_network)?,
            vcpu: Filter::new(Thread::Vcpu, changes_network)?,
            server: Filter::new(Thread::Server, changes_network)?,
            readiness: Filter::new(Thread::Readiness, changes_network)?,
            control: Filter::new(Thread::Control, changes_network)?,
        })
    }
}

/// Starts a thread that restricts itself before anything else.
fn spawn(name: &str, filter: &Filter, body: impl FnOnce() + Send + 'static) -> Result<(), HostError> {
    let filter = filter.clone();
    let restricted = move || match filter.install() {
        Ok(()) => body(),
        Err(error) => {
            crate::log::error(&error.message);
            std::process::exit(FAILED);
        }
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
        .spawn(restricted)
        .during(Kind::Host, "cannot start a thread")?;
    Ok(())
}

impl Running {
    fn spawn_server(&self) -> Result<(), HostError> {
        let servers = self.servers.clone();
        spawn("server", &self.filters.server, move || servers.serve())
    }

    /// One more server, if the host lets us have one more thread.
    fn grow_servers(&self) {
        if let Err(error) = self.spawn_server() {
            crate::log::error(&error.message);
            self.servers.did_not_grow();
        }
    }

    fn start_vcpu(&mut self, index: u32, vcpu: Box<dyn crate::backends::Vcpu>) -> Result<(), HostError> {
        if let Some(started) = self.started.get_mut(index as usize) {
            *started = true;
        }
        let status = Arc::new(Status::default());
        self.vcpus.lock().unwrap_or_else(PoisonError::into_inner).push(status.clone());
        let runner = Runner {
            index,
            vcpu,
            host: self.host.clone(),
            servers: self.servers.clone(),
            status,
            gate: self.gate.clone(),
            notices: self.notices.clone(),
            asked: self.asked.clone(),
            debug: self.debug,
        };
        spawn(&format!("vcpu{index}"), &self.filters.vcpu, move || runner.run())
    }

    /// The guest asked for another vCPU. Asking for one that runs, or may not exist, changes nothing.
    fn add_vcpu(&mut self, index: u32) -> Result<(), HostError> {
        if index >= self.vcpu_limit || self.started.get(index as usize).copied().unwrap_or(true) {
            return Ok(());
        }
        let (ring0, ring3) = self.entries;
        let vcpu = self.host.machine.create_vcpu(&tables::start(&self.host.memory, index, ring0, ring3)?)?;
        self.start_vcpu(index, vcpu)
    }

    /// The main thread's life: until the guest ends.
    fn wait(mut self) -> Result<i32, HostError> {
        let mut next_update = Instant::now() + DOORBELL_DELAY;
        let mut doorbell_is_bound = false;
        loop {
            match self.inbox.recv_timeout(next_update.saturating_duration_since(Instant::now())) {
                Ok(Notice::StartCpu(index)) => self.add_vcpu(index)?,
                Ok(Notice::GrowServers) => self.grow_servers(),
                Ok(Notice::Exit(status)) => {
                    self.flush();
                    self.host.control.finish(status << 8);
                    return Ok(status as i32);
                }
                Ok(Notice::Failed(error)) => {
                    self.host.control.finish((FAILED as u32) << 8);
                    return Err(error);
                }
                Ok(Notice::Abandoned) => return Err(HostError::new(Kind::Host, "whoever created the container has died")),
                Err(RecvTimeoutError::Timeout) => {
                    if !doorbell_is_bound {
                        self.host.machine.bind_doorbell(port::DOORBELL, self.servers.doorbell())?;
                        doorbell_is_bound = true;
                    }
                    let _ = self.clock.update(&self.host.memory, CLOCK_PERIOD.as_nanos() as u64);
                    next_update = Instant::now() + CLOCK_PERIOD;
                }
                Err(RecvTimeoutError::Disconnected) => return Err(HostError::new(Kind::Host, "every thread is gone")),
            }
        }
    }

    /// Lets requests that are under way come to their end.
    fn flush(&self) {
        let limit = Instant::now() + FLUSH_LIMIT;
        while self.servers.busy() && Instant::now() < limit {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}
