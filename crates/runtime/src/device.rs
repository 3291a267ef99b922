//! Which hardware a model runs on. The only place that names a backend.

use carat_cpu::{CpuBackend, CpuOptions};
pub use carat_cpu::{GROUP_ROWS, Precision, interleave, large_pages};

use crate::Error;

/// The backend that runs models.
pub type Device = CpuBackend;

/// How to use the hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceOptions {
    /// Threads that compute; `None` is one per core that this process may use.
    pub threads: Option<usize>,
    /// Fast kernels, the same with long prompts and encoders rounded to 8 bits throughout ([`DecoderOptions::coarse`]), or the slow
    /// path that defines the result.
    ///
    /// [`DecoderOptions::coarse`]: carat_model::DecoderOptions::coarse
    pub precision: Precision,
}

impl Default for DeviceOptions {
    fn default() -> Self {
        DeviceOptions { threads: None, precision: Precision::Fast }
    }
}

/// Starts the backend.
pub fn open(options: DeviceOptions) -> Result<Device, Error> {
    Ok(CpuBackend::new(CpuOptions { threads: options.threads, precision: options.precision, isa: None })?)
}
