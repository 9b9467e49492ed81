//! KVM: hardware (kvm-intel, kvm-amd) and paging-based (kvm-pvm).
//!
//! The local APIC is in the host kernel (split irqchip: no I/O APIC, no PIC); interrupts are sent as message-signalled ones with
//! KVM_SIGNAL_MSI, which needs neither a routing table nor an event descriptor per vCPU.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use abi::layout::{KERNEL_CS, KERNEL_DS};
use kvm_bindings::{
    kvm_device_attr, kvm_enable_cap, kvm_mp_state, kvm_msi, kvm_msr_entry, kvm_segment, kvm_userspace_memory_region, CpuId, Msrs,
    KVM_CAP_SPLIT_IRQCHIP, KVM_MAX_CPUID_ENTRIES, KVM_MP_STATE_RUNNABLE, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET,
};
use kvm_ioctls::{IoEventAddress, Kvm, NoDatamatch, VcpuExit, VcpuFd, VmFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::OnceLock;

use super::{cpuid, Exit, Features, Machine, Start, Vcpu};
use crate::error::{During, HostError, Kind};
use crate::memory::GuestMemory;

const MSR_TSC: u32 = 0x10;
const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
/// Bit 0: CPUID in ring 3 is a general-protection fault (Intel SDM volume 3A, "CPUID Faulting"; KVM has it on AMD too).
const MSR_MISC_FEATURES_ENABLES: u32 = 0x140;
const MSR_SFMASK: u32 = 0xc000_0084;
/// What SYSCALL clears: trap and nested-task flag, with which the library OS's entry code would not get far. (Not the interrupt flag: on
/// the paging-based KVM nothing would set it again.)
const CLEARED_FLAGS: u64 = 0x100 | 0x4000;
/// PE, MP, ET, NE, WP, AM, PG.
const CR0: u64 = 0x8005_0033;
const CR4_PAE: u64 = 1 << 5;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
const CR4_FSGSBASE: u64 = 1 << 16;
const CR4_OSXSAVE: u64 = 1 << 18;
/// SCE, LME, LMA, NXE.
const EFER: u64 = 0xd01;
const KVM_SET_DEVICE_ATTR: libc::Ioctl = 0x4018_aee1;
const KVM_SET_NR_MMU_PAGES: libc::Ioctl = 0xae44;

pub struct KvmMachine {
    vm: VmFd,
    memory: Arc<GuestMemory>,
    cpuid: CpuId,
    features: Features,
    slots: AtomicU32,
    /// Pages of guest-physical address space in slots, for the limit of shadow pages.
    pages: AtomicU64,
    tsc_hz: OnceLock<u64>,
    /// What CPUID answers on the first vCPU.
    answers: OnceLock<Option<CpuId>>,
}

/// Opens /dev/kvm, with advice when it cannot be.
pub fn open() -> Result<OwnedFd, HostError> {
    use rustix::fs::{openat, Mode, OFlags, CWD};
    use rustix::io::Errno;
    openat(CWD, c"/dev/kvm", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|error| {
        let advice = match error {
            Errno::NOENT => "this machine has no KVM: load kvm_intel, kvm_amd or kvm_pvm, or enable (nested) virtualization",
            Errno::ACCESS | Errno::PERM => "add the user to the group that owns it (usually kvm)",
            _ => "is the KVM module loaded?",
        };
        HostError::new(Kind::Kvm, format!("cannot open /dev/kvm: {error} ({advice})"))
    })
}

impl KvmMachine {
    pub fn new(device: OwnedFd, memory: Arc<GuestMemory>) -> Result<Self, HostError> {
        // SAFETY: an open descriptor, given away here.
        let kvm = unsafe { Kvm::from_raw_fd(device.into_raw_fd()) };
        let version = kvm.get_api_version();
        if version != 12 {
            return Err(HostError::new(Kind::Kvm, format!("/dev/kvm has API version {version}, not 12")));
        }
        let vm = create_vm(&kvm)?;
        let mut split = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, ..Default::default() };
        split.args[0] = 24;
        vm.enable_cap(&split).during(Kind::Kvm, "KVM_CAP_SPLIT_IRQCHIP")?;
        let mut cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).during(Kind::Kvm, "KVM_GET_SUPPORTED_CPUID")?;
        cpuid::complete(&mut cpuid);
        let xcr0 = cpuid::xcr0(&cpuid);
        cpuid::trim(&mut cpuid, xcr0);
        let features = Features {
            xcr0,
            xsave_bytes: cpuid::xsave_bytes(xcr0),
            tsc_hz: 0,
            // KVM counts the APIC timer in units of 1 ns unless told otherwise (KVM_CAP_X86_APIC_BUS_CYCLES_NS).
            apic_timer_hz: 1_000_000_000,
            exits_are_cheap: exits_are_cheap(),
            shadow_paging: !has_hardware_paging(),
        };
        Ok(Self {
            vm,
            memory,
            cpuid,
            features,
            slots: AtomicU32::new(0),
            pages: AtomicU64::new(0),
            tsc_hz: OnceLock::new(),
            answers: OnceLock::new(),
        })
    }

    fn set_shadow_page_limit(&self, pages: u64) {
        // Shadow paging needs a page per 2 MiB mapped in each address space, hence far more than KVM's default of 2 % of the slots. It is
        // a limit, not a reservation; hardware paging ignores it.
        let limit = (pages / 8).clamp(16 << 10, 4 << 20);
        // SAFETY: the argument is a number.
        unsafe { libc::ioctl(self.vm.as_raw_fd(), KVM_SET_NR_MMU_PAGES, limit) };
    }
}

/// KVM_CREATE_VM answers EINTR when a signal arrives at the wrong moment.
fn create_vm(kvm: &Kvm) -> Result<VmFd, HostError> {
    for _ in 0..20 {
        match kvm.create_vm() {
            Err(error) if error.errno() == libc::EINTR => {}
            other => return other.during(Kind::Kvm, "KVM_CREATE_VM"),
        }
    }
    Err(HostError::new(Kind::Kvm, "KVM_CREATE_VM: interrupted again and again"))
}

/// An exit costs 1 to 2 us with hardware virtualization, 20 us and more on the paging-based KVM and in nested virtualization.
fn exits_are_cheap() -> bool {
    let nested = std::arch::x86_64::__cpuid_count(1, 0).ecx >> 31 & 1 == 1;
    !nested && has_hardware_paging()
}

fn has_hardware_paging() -> bool {
    let loaded = |module: &str| rustix::fs::access(format!("/sys/module/{module}"), rustix::fs::Access::EXISTS).is_ok();
    !loaded("kvm_pvm") && (loaded("kvm_intel") || loaded("kvm_amd"))
}

impl Machine for KvmMachine {
    fn features(&self) -> Features {
        Features { tsc_hz: self.tsc_hz.get().copied().unwrap_or(0), ..self.features }
    }

    fn add_memory(&self, gpa: u64, bytes: u64) -> Result<(), HostError> {
        let slot = self.slots.fetch_add(1, Ordering::Relaxed);
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: gpa,
            memory_size: bytes,
            userspace_addr: self.memory.host_address(gpa),
        };
        // SAFETY: the range lies in the reservation of `self.memory`, which lives as long as the VM does.
        unsafe { self.vm.set_user_memory_region(region) }.during(Kind::Kvm, "KVM_SET_USER_MEMORY_REGION")?;
        let pages = self.pages.fetch_add(bytes >> 12, Ordering::Relaxed) + (bytes >> 12);
        self.set_shadow_page_limit(pages);
        Ok(())
    }

    fn bind_doorbell(&self, port: u16, event: BorrowedFd<'_>) -> Result<(), HostError> {
        let copy = event.try_clone_to_owned().during(Kind::Host, "dup")?;
        // SAFETY: an open event descriptor, given away here; KVM keeps a reference of its own.
        let event = unsafe { vmm_sys_util::eventfd::EventFd::from_raw_fd(copy.into_raw_fd()) };
        self.vm.register_ioevent(&event, &IoEventAddress::Pio(u64::from(port)), NoDatamatch).during(Kind::Kvm, "KVM_IOEVENTFD")
    }

    fn interrupt(&self, vcpu: u32, vector: u8) {
        // Fixed delivery, physical destination, edge: SDM volume 3A, "Message Signalled Interrupts".
        let message = kvm_msi { address_lo: 0xfee0_0000 | (vcpu & 0xff) << 12, data: u32::from(vector), ..Default::default() };
        let _ = self.vm.signal_msi(message);
    }

    fn create_vcpu(&self, start: &Start) -> Result<Box<dyn Vcpu>, HostError> {
        let fd = self.vm.create_vcpu(u64::from(start.index)).during(Kind::Kvm, "KVM_CREATE_VCPU")?;
        let mut identity = self.cpuid.clone();
        cpuid::identify(&mut identity, start.index);
        fd.set_cpuid2(&identity).during(Kind::Kvm, "KVM_SET_CPUID2")?;
        let has_xsave = cpuid::has_xsave(&self.cpuid);
        if set_system_registers(&fd, start, has_xsave)? {
            let mut xcrs = fd.get_xcrs().during(Kind::Kvm, "KVM_GET_XCRS")?;
            xcrs.nr_xcrs = 1;
            xcrs.xcrs[0].xcr = 0;
            xcrs.xcrs[0].value = self.features.xcr0;
            fd.set_xcrs(&xcrs).during(Kind::Kvm, "KVM_SET_XCRS")?;
        }
        set_msrs(&fd, start)?;
        self.publish_cpuid(&fd, start.index);
        let mut registers = kvm_bindings::kvm_regs { rip: start.rip, rsp: start.rsp, rdi: start.rdi, rsi: start.rsi, ..Default::default() };
        registers.rflags = 2;
        fd.set_regs(&registers).during(Kind::Kvm, "KVM_SET_REGS")?;
        // The others would wait for the boot CPU's INIT and SIPI.
        fd.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE }).during(Kind::Kvm, "KVM_SET_MP_STATE")?;
        let khz = fd.get_tsc_khz().during(Kind::Kvm, "KVM_GET_TSC_KHZ")?;
        let _ = self.tsc_hz.set(u64::from(khz) * 1000);
        Ok(Box::new(KvmVcpu { fd }))
    }
}

impl KvmMachine {
    /// Gives the guest the table of a vCPU's CPUID answers, and from then on the executions themselves: each would cost an exit, and the C
    /// library executes 60 when a program starts. The guest can do without both.
    fn publish_cpuid(&self, fd: &VcpuFd, index: u32) {
        // KVM has completed the first vCPU's list by what its registers say; the others differ in their ids.
        let first = self.answers.get_or_init(|| fd.get_cpuid2(KVM_MAX_CPUID_ENTRIES).ok());
        let Some(mut list) = first.clone() else { return };
        cpuid::identify(&mut list, index);
        if cpuid::publish(&list, &self.memory, index).is_ok() {
            if let Ok(msrs) = Msrs::from_entries(&[kvm_msr_entry { index: MSR_MISC_FEATURES_ENABLES, data: 1, ..Default::default() }]) {
                let _ = fd.set_msrs(&msrs);
            }
        }
    }
}

/// True: the guest has XSAVE switched on.
fn set_system_registers(fd: &VcpuFd, start: &Start, has_xsave: bool) -> Result<bool, HostError> {
    let code = kvm_segment { limit: u32::MAX, selector: KERNEL_CS, type_: 11, present: 1, s: 1, l: 1, g: 1, ..Default::default() };
    let data = kvm_segment { limit: u32::MAX, selector: KERNEL_DS, type_: 3, present: 1, db: 1, s: 1, g: 1, ..Default::default() };
    let mut system = fd.get_sregs().during(Kind::Kvm, "KVM_GET_SREGS")?;
    system.cs = code;
    (system.ds, system.es, system.fs, system.ss) = (data, data, data, data);
    system.gs = kvm_segment { base: start.gs_base, ..data };
    system.tr = kvm_segment { base: start.tss.0, limit: start.tss.1, selector: start.tss.2, type_: 11, present: 1, ..Default::default() };
    (system.gdt.base, system.gdt.limit) = start.gdt;
    (system.idt.base, system.idt.limit) = start.idt;
    system.cr0 = CR0;
    system.cr3 = start.cr3;
    system.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_FSGSBASE | if has_xsave { CR4_OSXSAVE } else { 0 };
    system.efer = EFER;
    if fd.set_sregs(&system).is_ok() {
        return Ok(has_xsave);
    }
    // Programs do without AVX rather than without a machine.
    system.cr4 &= !CR4_OSXSAVE;
    fd.set_sregs(&system).during(Kind::Kvm, "KVM_SET_SREGS (does the CPU have FSGSBASE?)")?;
    Ok(false)
}

fn set_msrs(fd: &VcpuFd, start: &Start) -> Result<(), HostError> {
    let entry = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    let msrs =
        [entry(MSR_STAR, 0x23 << 48 | u64::from(KERNEL_CS) << 32), entry(MSR_LSTAR, start.syscall_entry), entry(MSR_SFMASK, CLEARED_FLAGS)];
    let msrs = Msrs::from_entries(&msrs).map_err(|error| HostError::new(Kind::Kvm, format!("{error:?}")))?;
    if fd.set_msrs(&msrs).during(Kind::Kvm, "KVM_SET_MSRS")? != 3 {
        return Err(HostError::new(Kind::Kvm, "KVM_SET_MSRS refused the system-call registers"));
    }
    // The guest's time-stamp counter is the host's: by offset 0 where KVM can (5.16), else by writing the present value.
    let offset = 0u64;
    let attribute =
        kvm_device_attr { group: KVM_VCPU_TSC_CTRL, attr: u64::from(KVM_VCPU_TSC_OFFSET), addr: &raw const offset as u64, flags: 0 };
    // SAFETY: the attribute, and the number that it points to, live during the call.
    if unsafe { libc::ioctl(fd.as_raw_fd(), KVM_SET_DEVICE_ATTR, &raw const attribute) } != 0 {
        let msrs =
            Msrs::from_entries(&[entry(MSR_TSC, crate::clock::tsc())]).map_err(|error| HostError::new(Kind::Kvm, format!("{error:?}")))?;
        fd.set_msrs(&msrs).during(Kind::Kvm, "KVM_SET_MSRS (time-stamp counter)")?;
    }
    Ok(())
}

struct KvmVcpu {
    fd: VcpuFd,
}

impl Vcpu for KvmVcpu {
    fn run(&mut self) -> Result<Exit, HostError> {
        match self.fd.run() {
            Ok(VcpuExit::IoOut(port, data)) => {
                let mut bytes = [0; 4];
                let length = data.len().min(4);
                bytes[..length].copy_from_slice(&data[..length]);
                Ok(Exit::Out(port, u32::from_le_bytes(bytes)))
            }
            Ok(VcpuExit::IoIn(_, data) | VcpuExit::MmioRead(_, data)) => {
                data.fill(0xff);
                Ok(Exit::Nothing)
            }
            Ok(VcpuExit::MmioWrite(..) | VcpuExit::IoapicEoi(_)) => Ok(Exit::Nothing),
            Ok(VcpuExit::MemoryFault { gpa, .. }) => Ok(Exit::NoPage(Some(gpa))),
            Ok(VcpuExit::Hlt) => Ok(Exit::Halted),
            Ok(VcpuExit::Intr) => Ok(Exit::Interrupted),
            Ok(VcpuExit::Shutdown | VcpuExit::SystemEvent(..)) => Ok(Exit::Shutdown),
            Ok(other) => {
                let text = format!("{other:?}");
                Err(HostError::new(Kind::Guest, format!("guest CPU stopped: {text}")))
            }
            Err(error) => match error.errno() {
                libc::EINTR | libc::EAGAIN => Ok(Exit::Interrupted),
                libc::EFAULT => Ok(Exit::NoPage(None)),
                _ => Err(HostError::new(Kind::Kvm, format!("KVM_RUN: {error}"))),
            },
        }
    }

    fn describe(&self) -> String {
        let (Ok(r), Ok(s)) = (self.fd.get_regs(), self.fd.get_sregs()) else {
            return "registers unknown".to_owned();
        };
        format!(
            "rip={:#x} rsp={:#x} rflags={:#x} cs={:#x} ss={:#x} cr2={:#x} cr3={:#x} rax={:#x} rbx={:#x} rcx={:#x} rdx={:#x} rsi={:#x} rdi={:#x} rbp={:#x} r8={:#x} r9={:#x} r10={:#x} r11={:#x} r12={:#x} r13={:#x} r14={:#x} r15={:#x} gs={:#x} fs={:#x}",
            r.rip, r.rsp, r.rflags, s.cs.selector, s.ss.selector, s.cr2, s.cr3, r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp,
            r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, s.gs.base, s.fs.base
        )
    }
}
