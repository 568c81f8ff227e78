//! A network within one process, for tests.

use raftz_core::transport::memory::MemoryNetwork;

use crate::error::raftz_error;
use crate::guard::{Out, call, free};
use crate::status::raftz_status;

/// \brief A network within this process, for tests: nodes that are started in it reach each other without
/// ports.
pub struct raftz_network(pub(crate) MemoryNetwork);

/// \brief Makes a network.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param network [out] The network, to be freed with raftz_network_free().
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK or RAFTZ_NULL_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_network_new(
    network: *mut *mut raftz_network,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        let out = Out::new(network, "network")?;
        // SAFETY: the caller's contract.
        unsafe { out.give(raftz_network(MemoryNetwork::new())) };
        Ok(())
    })
}

/// \brief Frees a network. Nodes in it keep what they need of it.
///
/// Threads: any, once. Inside callbacks: yes. Blocks: no.
///
/// \param network The network, or NULL, which is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_network_free(network: *mut raftz_network) {
    // SAFETY: the caller's contract: NULL, or a network that is C's own.
    unsafe { free(network) }
}
