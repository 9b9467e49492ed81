//! The vCPU: who am I, what is pending, interrupts, ring-0 services.
