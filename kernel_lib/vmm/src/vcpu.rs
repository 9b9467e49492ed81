//! A vCPU's thread: runs guest code and handles what leaves it.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use abi::layout::{port, vector};

use crate::backends::{signal, Exit, Vcpu};
use crate::boot;
use crate::error::{HostError, Kind};
use crate::machine::Notice;
use crate::server::{Servers, Worker};
use crate::services::window::Access;
use crate::services::Host;

/// Consecutive accesses to memory that the host cannot provide before the guest is given up.
const MAX_BAD_ACCESSES: u32 = 64;

/// What others may know of, and ask from, a vCPU thread.
#[derive(Default)]
pub struct Status {
    pub thread: AtomicI32,
    pub exits: AtomicU64,
    pub port_exits: AtomicU64,
    pub signals: AtomicU64,
    stopped: AtomicBool,
}

/// Pauses and resumes all vCPU threads.
#[derive(Default)]
pub struct Gate {
    paused: Mutex<bool>,
    wanted: AtomicBool,
    opened: Condvar,
}

impl Gate {
    /// Stops the threads; returns when none runs guest code.
    pub fn pause(&self, vcpus: &[Arc<Status>]) {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wanted.store(true, Ordering::SeqCst);
        for status in vcpus {
            // The signal may arrive just before the thread enters the guest: again until it has stopped.
            while !status.stopped.load(Ordering::SeqCst) {
                signal::kick(status.thread.load(Ordering::SeqCst));
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
        }
    }

    pub fn resume(&self) {
        self.wanted.store(false, Ordering::SeqCst);
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.opened.notify_all();
    }

    pub fn is_paused(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    fn pass(&self, status: &Status) {
        if !self.wanted.load(Ordering::Relaxed) {
            return;
        }
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        status.stopped.store(true, Ordering::SeqCst);
        while *paused {
            paused = self.opened.wait(paused).unwrap_or_else(PoisonError::into_inner);
        }
        status.stopped.store(false, Ordering::SeqCst);
    }
}

pub struct Runner {
    pub index: u32,
    pub vcpu: Box<dyn Vcpu>,
    pub host: Arc<Host>,
    pub servers: Arc<Servers>,
    pub status: Arc<Status>,
    pub gate: Arc<Gate>,
    pub notices: Sender<Notice>,
    /// vCPUs that the guest has asked for, a bit each.
    pub asked: Arc<AtomicU64>,
    pub debug: bool,
}

impl Runner {
    /// The life of a vCPU thread.
    pub fn run(mut self) {
        self.status.thread.store(signal::thread_id(), Ordering::SeqCst);
        if let Err(error) = self.run_guest() {
            let detail = if self.debug { format!("{error}; vCPU {}: {}", self.index, self.vcpu.describe()) } else { error.message };
            let _ = self.notices.send(Notice::Failed(HostError::new(Kind::Guest, detail)));
        }
    }

    fn run_guest(&mut self) -> Result<(), HostError> {
        let mut bad_accesses = 0;
        let mut line = Vec::new();
        loop {
            self.gate.pass(&self.status);
            let exit = self.vcpu.run()?;
            self.status.exits.fetch_add(1, Ordering::Relaxed);
            if !matches!(exit, Exit::NoPage(_) | Exit::Interrupted) {
                bad_accesses = 0;
            }
            match exit {
                Exit::Out(number, value) => {
                    self.status.port_exits.fetch_add(1, Ordering::Relaxed);
                    match number {
                        port::EXIT => {
                            let _ = self.notices.send(Notice::Exit(value & 0xff));
                            self.park();
                        }
                        port::START_CPU => {
                            self.start_cpu(value);
                        }
                        // Only until the port is bound, see `machine::DOORBELL_DELAY`.
                        port::DOORBELL => self.servers.ring(),
                        port::REQUEST => self.servers.serve_slot(value, &Worker::outside()),
                        port::PANIC => {
                            let text = boot::panic_text(&self.host.memory);
                            return Err(HostError::new(Kind::Guest, format!("library OS panicked: {text}")));
                        }
                        port::DEBUG if self.debug => debug_byte(&mut line, value as u8),
                        _ => {}
                    }
                }
                Exit::Nothing | Exit::Halted => {}
                Exit::Interrupted => {
                    self.status.signals.fetch_add(1, Ordering::Relaxed);
                }
                Exit::NoPage(address) => {
                    bad_accesses += 1;
                    self.no_page(address, bad_accesses)?;
                }
                Exit::Shutdown => return Err(HostError::new(Kind::Guest, "guest CPU shut down (triple fault)")),
            }
        }
    }

    /// Asks the main thread once for each vCPU, however often the guest asks.
    fn start_cpu(&self, index: u32) {
        let bit = 1u64.checked_shl(index).unwrap_or(0);
        if bit != 0 && self.asked.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            let _ = self.notices.send(Notice::StartCpu(index));
        }
    }

    /// The end of the VM is near: the main thread ends the process.
    fn park(&self) {
        loop {
            std::thread::park();
        }
    }

    fn no_page(&self, address: Option<u64>, count: u32) -> Result<(), HostError> {
        if count > MAX_BAD_ACCESSES && self.host.patch_missing() {
            return Ok(());
        }
        match self.host.inaccessible(address) {
            Access::Again => Ok(()),
            // The interrupt comes before the instruction is tried again.
            Access::Missing(page) => {
                if let Ok(word) = self.host.memory.atomic_u64(boot::bus_error(self.index)) {
                    word.store(page + 1, Ordering::SeqCst);
                }
                self.host.machine.interrupt(self.index, vector::BUS_ERROR);
                Ok(())
            }
            Access::Unknown if count < MAX_BAD_ACCESSES => {
                // Perhaps the host is short of memory for a moment.
                std::thread::sleep(std::time::Duration::from_millis(1));
                Ok(())
            }
            Access::Unknown => Err(HostError::new(Kind::Guest, "guest touches memory that the host cannot provide")),
        }
    }
}

/// Debug output goes to the log line by line.
fn debug_byte(line: &mut Vec<u8>, byte: u8) {
    const LONGEST: usize = 1024;
    if byte != b'\n' {
        line.push(byte);
    }
    if byte == b'\n' || line.len() >= LONGEST {
        crate::log::debug(&String::from_utf8_lossy(line));
        line.clear();
    }
}
