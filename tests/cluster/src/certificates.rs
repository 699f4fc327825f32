//! Keys and certificates, generated for one run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// A certificate authority. Its files are in one folder.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    name: String,
    issuer: Issuer<'static, KeyPair>,
}

/// The files of a certificate.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate, as PEM.
    pub certificate: PathBuf,
    /// Its key, as PEM.
    pub key: PathBuf,
}

impl Authority {
    /// Generates an authority.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn new(folder: &Path, name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        write(folder, name, &params.self_signed(&key)?, &key)?;
        let issuer = Issuer::new(params, key);
        Ok(Self { folder: folder.to_owned(), name: name.to_owned(), issuer })
    }

    /// Its certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.join(format!("{}.crt", self.name))
    }

    /// Issues a certificate for a server with these names and addresses.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn server(&self, name: &str, hosts: &[&str]) -> Result<Pair> {
        let mut params = CertificateParams::new(hosts.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>())?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(name, params)
    }

    /// Issues a certificate for a user who is a member of a group.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn user(&self, name: &str, group: &str) -> Result<Pair> {
        self.sign(name, user(group)?)
    }

    /// Issues a certificate that has expired.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn expired_user(&self, name: &str, group: &str) -> Result<Pair> {
        let mut params = user(group)?;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 2);
        self.sign(name, params)
    }

    fn sign(&self, name: &str, mut params: CertificateParams) -> Result<Pair> {
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        write(&self.folder, name, &params.signed_by(&key, &self.issuer)?, &key)
    }
}

fn user(group: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// Generates a signing key pair. Returns the files of the private and the public key, as PEM.
///
/// # Errors
/// If a file can't be written.
pub fn signing_key(folder: &Path, name: &str) -> Result<(PathBuf, PathBuf)> {
    let key = KeyPair::generate()?;
    let (private, public) = (folder.join(format!("{name}.key")), folder.join(format!("{name}.pub")));
    fs::write(&private, key.serialize_pem())?;
    fs::write(&public, key.public_key_pem())?;
    Ok((private, public))
}

fn write(folder: &Path, name: &str, certificate: &Certificate, key: &KeyPair) -> Result<Pair> {
    let pair =
        Pair { certificate: folder.join(format!("{name}.crt")), key: folder.join(format!("{name}.key")) };
    fs::write(&pair.certificate, certificate.pem())?;
    fs::write(&pair.key, key.serialize_pem())?;
    Ok(pair)
}
