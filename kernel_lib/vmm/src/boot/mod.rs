//! What guest memory holds before the first instruction: tables ([`tables`]), the image ([`image`]), boot page, configuration.

pub mod image;
pub mod tables;

use std::mem::offset_of;

use abi::boot::{BootPage, CpuShared, MAGIC, VERSION};
use abi::layout::{BOOT_CONFIG, BOOT_CONFIG_MAX, BOOT_PAGE, IMAGE, LIBOS_BASE};

use crate::backends::Features;
use crate::error::{During, HostError, Kind};
use crate::memory::{Fault, GuestMemory};
use crate::plan::Plan;

impl From<Fault> for HostError {
    fn from(_: Fault) -> Self {
        Self::new(Kind::Memory, "guest memory is too small for what has to be written at start")
    }
}

/// Writes the boot page and the container's configuration.
pub fn write_boot_page(memory: &GuestMemory, plan: &Plan, features: &Features, image_end: u64, dax_end: u64) -> Result<(), HostError> {
    let config = postcard::to_allocvec(&plan.container).during(Kind::Plan, "container configuration")?;
    if config.len() as u64 > BOOT_CONFIG_MAX {
        return Err(HostError::plan(format!("container configuration of {} bytes is longer than {BOOT_CONFIG_MAX}", config.len())));
    }
    memory.write_bytes(BOOT_CONFIG, &config)?;
    let field = |offset: usize, value: u64| memory.write(BOOT_PAGE + offset as u64, &value);
    let half = |offset: usize, value: u32| memory.write(BOOT_PAGE + offset as u64, &value);
    field(offset_of!(BootPage, magic), MAGIC)?;
    half(offset_of!(BootPage, version), VERSION)?;
    half(offset_of!(BootPage, vcpus), plan.vcpus)?;
    field(offset_of!(BootPage, ram_end), memory.ram_end())?;
    field(offset_of!(BootPage, ram_limit), plan.memory)?;
    field(offset_of!(BootPage, image_end), image_end)?;
    field(offset_of!(BootPage, config_bytes), config.len() as u64)?;
    field(offset_of!(BootPage, dax_end), dax_end)?;
    half(offset_of!(BootPage, xsave_bytes), features.xsave_bytes)?;
    half(offset_of!(BootPage, exits_are_cheap), u32::from(features.exits_are_cheap))?;
    half(offset_of!(BootPage, shadow_paging), u32::from(features.shadow_paging))?;
    field(offset_of!(BootPage, xcr0), features.xcr0)?;
    let mut seed = [0u8; 32];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty()).during(Kind::Host, "getrandom")?;
    memory.write_bytes(BOOT_PAGE + offset_of!(BootPage, random_seed) as u64, &seed)?;
    Ok(())
}

/// The text that the library OS left before it panicked.
pub fn panic_text(memory: &GuestMemory) -> String {
    let limit = size_of_text();
    let bytes = memory.read::<u64>(BOOT_PAGE + offset_of!(BootPage, panic_bytes) as u64).unwrap_or(0).min(limit as u64);
    let mut text = vec![0; bytes as usize];
    let _ = memory.read_into(BOOT_PAGE + offset_of!(BootPage, panic_text) as u64, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

const fn size_of_text() -> usize {
    offset_of!(BootPage, cpus) - offset_of!(BootPage, panic_text)
}

/// Guest-physical address of a vCPU's bus-error word.
pub fn bus_error(vcpu: u32) -> u64 {
    BOOT_PAGE + (offset_of!(BootPage, cpus) + vcpu as usize * size_of::<CpuShared>()) as u64
}

/// The ring-3 entry address from the image's header: `u64 magic, u64 entry`.
pub fn image_entry(memory: &GuestMemory) -> Result<u64, HostError> {
    if memory.read::<u64>(IMAGE)? != MAGIC {
        return Err(HostError::new(Kind::Kernel, "guest image does not begin with LiteBox's header"));
    }
    let entry = memory.read::<u64>(IMAGE + 8)?;
    if entry < LIBOS_BASE + IMAGE || entry - LIBOS_BASE >= memory.ram_end() {
        return Err(HostError::new(Kind::Kernel, format!("guest image has a bad entry address {entry:#x}")));
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_page_is_a_page() {
        assert!(size_of::<BootPage>() <= 4096);
        assert_eq!(size_of_text(), 1024);
    }
}
