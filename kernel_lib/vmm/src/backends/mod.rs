//! What the VMM needs of a hypervisor, and nothing that names one: KVM stands behind it today ([`kvm`]), Hyper-V's /dev/mshv fits too.
//!
//! A guest vCPU starts in 64-bit mode at ring 0 with the registers of [`Start`], has a local APIC that the hypervisor emulates, and leaves
//! [`Vcpu::run`] with an [`Exit`].

mod cpuid;
pub mod kvm;
pub mod signal;

use std::os::fd::BorrowedFd;

use crate::error::HostError;

/// Facts about the virtual CPU and machine that the guest is told, or that decide how it is served.
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    pub xcr0: u64,
    pub xsave_bytes: u32,
    pub tsc_hz: u64,
    pub apic_timer_hz: u64,
    pub exits_are_cheap: bool,
    pub shadow_paging: bool,
}

/// First state of a vCPU.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    pub index: u32,
    pub rip: u64,
    pub rsp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub cr3: u64,
    pub gdt: (u64, u16),
    pub idt: (u64, u16),
    /// Base, limit, selector.
    pub tss: (u64, u32, u16),
    pub gs_base: u64,
    pub syscall_entry: u64,
}

pub trait Machine: Send + Sync {
    fn features(&self) -> Features;
    /// Gives the guest the host memory behind `gpa..gpa+bytes` (backed or reserved there already).
    fn add_memory(&self, gpa: u64, bytes: u64) -> Result<(), HostError>;
    /// A 4-byte write to `port` signals `event` without leaving the guest.
    fn bind_doorbell(&self, port: u16, event: BorrowedFd<'_>) -> Result<(), HostError>;
    /// Fires an edge-triggered interrupt at a vCPU. From any thread; a vCPU that does not exist is no error.
    fn interrupt(&self, vcpu: u32, vector: u8);
    fn create_vcpu(&self, start: &Start) -> Result<Box<dyn Vcpu>, HostError>;
}

pub trait Vcpu: Send {
    /// Runs guest code on this thread until something is for the VMM. A [`signal::kick`] of the thread makes it return.
    fn run(&mut self) -> Result<Exit, HostError>;
    /// Registers as text, for the message of a VM that failed.
    fn describe(&self) -> String;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// OUT: port, value (the lowest 4 bytes).
    Out(u16, u32),
    /// IN, or access to an address without memory: reads give ones, writes go nowhere.
    Nothing,
    /// The host has no page for this address (None: the hypervisor does not say which).
    NoPage(Option<u64>),
    /// A signal arrived.
    Interrupted,
    /// Triple fault or shutdown.
    Shutdown,
    /// HLT that the hypervisor does not handle itself.
    Halted,
}
