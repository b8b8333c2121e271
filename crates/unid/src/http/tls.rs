//! TLS 1.2 and 1.3 for the HTTP listeners, with certificate and key from PEM files.
//!
//! Owns reading them and the first bytes of a connection. Nothing of a key is ever logged.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustls::ServerConfig;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A client that has not finished its handshake by then is let go.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// The first byte of a TLS connection: a record of type handshake (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// Reads certificate chain and key, in this order.
///
/// # Errors
/// Says which file is wrong, and how.
pub(super) fn read(files: &[PathBuf]) -> anyhow::Result<ServerConfig> {
    let [certificate, key] = files else { bail!("TLS needs a certificate and a key") };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("read the certificate {} (--tls-cert)", certificate.display()))?;
    if chain.is_empty() {
        bail!(
            "{} (--tls-cert) has no certificate in it; it must be PEM, with -----BEGIN CERTIFICATE-----",
            certificate.display()
        );
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
        PemError::NoItemsFound => anyhow::anyhow!(
            "{} (--tls-key) has no private key in it; it must be PEM, with -----BEGIN PRIVATE KEY-----, and not encrypted",
            key.display()
        ),
        other => anyhow::Error::new(other).context(format!("read the key {} (--tls-key)", key.display())),
    })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .with_context(|| {
            format!(
                "use the certificate {} (--tls-cert) with the key {} (--tls-key); they must belong together",
                certificate.display(),
                key.display()
            )
        })?;
    // in the order of preference: HTTP/2 is for those who speak nothing else (gRPC)
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    Ok(config)
}

/// Shakes hands; nothing if that fails or takes too long.
pub(super) async fn accept(config: Arc<ServerConfig>, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
    tokio::time::timeout(HANDSHAKE_TIME, shake_hands(config, stream)).await.ok().flatten()
}

async fn shake_hands(config: Arc<ServerConfig>, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
    let mut first = [0];
    if stream.peek(&mut first).await.ok()? == 1 && first[0] == HANDSHAKE_RECORD {
        return TlsAcceptor::from(config).accept(stream).await.ok();
    }
    // plain HTTP, most likely: a TLS alert would be rubbish to it. What it sent is read, so that it sees the
    // connection closed and not reset
    let _ = stream.try_read(&mut [0; 16 * 1024]);
    None
}
