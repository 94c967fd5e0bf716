//! Orders: the root key changes the log key, or itself. An order is made where the root key is, carried to the
//! gateway, and becomes an entry; from the next entry on its keys are in force.
//!
//! What a newcomer gets wrong: a log key that was rotated away goes on signing checkpoints for a while, beside
//! the new one, so that who pinned it has time to pin the next. One that was revoked signs nothing more. And a log key
//! signs the order that brings it, for this ledger alone: else whoever makes up a ledger could name somebody else's key.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::entry::Malformed;
use crate::manifest::Manifest;
use crate::segment::Fields;
use crate::signature::{KeyError, Keys, Origin, PublicKey, Role, Signature, Use, message};

/// The longest order that is read.
pub const ORDER_BYTES_MAX: usize = 4096;
/// The longest overlap: ten years.
pub const OVERLAP_S_MAX: u64 = 10 * 366 * 86_400;

/// Why a key was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// In good order: the old one signs along for a while.
    Rotated,
    /// It may be in other hands: it signs nothing more.
    Revoked,
}

impl Cause {
    fn name(self) -> &'static str {
        match self {
            Cause::Rotated => "rotated",
            Cause::Revoked => "revoked",
        }
    }
}

/// A key, and the number of the order that brought it; 0 for those of `ledger.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbered {
    /// The order's number.
    pub number: u32,
    /// The key.
    pub key: PublicKey,
}

/// A log key that was rotated away and still signs along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retiring {
    /// The key.
    pub was: Numbered,
    /// Until when, in nanoseconds since 1970 UTC.
    pub until_ns: u64,
}

/// Which root and log keys are in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority {
    /// How many orders there were.
    pub orders: u32,
    /// The root key.
    pub root: Numbered,
    /// The log key.
    pub log: Numbered,
    /// The log key that signs along.
    pub retiring: Option<Retiring>,
}

impl Authority {
    /// What `ledger.toml` says.
    #[must_use]
    pub fn first(manifest: &Manifest) -> Authority {
        let numbered = |key| Numbered { number: 0, key };
        Authority {
            orders: 0,
            root: numbered(manifest.root_key),
            log: numbered(manifest.log_key),
            retiring: None,
        }
    }

    /// Whether an order may come now, and is the root key's.
    ///
    /// # Errors
    /// [`Malformed`] where it is not.
    pub fn admits(&self, order: &Order, origin: &Origin) -> Result<(), Malformed> {
        if Some(order.number) != self.orders.checked_add(1) {
            return Err(Malformed("keys.changed has another number than the next order's"));
        }
        let signed = order.signed(origin);
        let changes_root = order.root_key != self.root.key;
        let cosigned = match &order.cosignature {
            Some(cosignature) => changes_root && order.root_key.verifies(&signed, cosignature),
            None => !changes_root,
        };
        if !self.root.key.verifies(&signed, &order.certificate) || !cosigned {
            return Err(Malformed("keys.changed is not signed by the root key"));
        }
        Ok(())
    }

    /// What holds behind an order that was taken at this time.
    ///
    /// # Errors
    /// [`Malformed`] where the order may not come now, or the root key or the log key that it brings did not sign it.
    pub fn after(&self, order: &Order, time_ns: u64, manifest: &Manifest) -> Result<Authority, Malformed> {
        self.admits(order, &manifest.origin)?;
        let changes_log = order.log_key != self.log.key;
        let possessed = match &order.possession {
            Some(possession) => changes_log && order.log_key.verifies(&order.possessed(manifest), possession),
            None => !changes_log,
        };
        if !possessed {
            return Err(Malformed("keys.changed is not signed by the log key that it brings"));
        }
        let step = |before: Numbered, key| {
            if before.key == key { before } else { Numbered { number: order.number, key } }
        };
        let until_ns = time_ns.saturating_add(order.overlap_s.saturating_mul(1_000_000_000));
        let retires = changes_log && order.cause == Cause::Rotated && order.overlap_s > 0;
        Ok(Authority {
            orders: order.number,
            root: step(self.root, order.root_key),
            log: step(self.log, order.log_key),
            retiring: if retires { Some(Retiring { was: self.log, until_ns }) } else { None },
        })
    }

    /// The log keys that sign a checkpoint at this time, the one in force first.
    pub fn signers(&self, now_ns: u64) -> impl Iterator<Item = Numbered> {
        let retiring = self.retiring.filter(|retiring| now_ns <= retiring.until_ns);
        [Some(self.log), retiring.map(|retiring| retiring.was)].into_iter().flatten()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.orders.to_be_bytes());
        for key in [self.root, self.log] {
            out.extend_from_slice(&key.number.to_be_bytes());
            out.extend_from_slice(&key.key.bytes());
        }
        out.push(u8::from(self.retiring.is_some()));
        if let Some(Retiring { was, until_ns }) = self.retiring {
            out.extend_from_slice(&was.number.to_be_bytes());
            out.extend_from_slice(&was.key.bytes());
            out.extend_from_slice(&until_ns.to_be_bytes());
        }
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Option<Authority> {
        fn numbered(fields: &mut Fields<'_>) -> Option<Numbered> {
            let number = u32::from_be_bytes(fields.take()?);
            Some(Numbered { number, key: PublicKey::new(&fields.take()?)? })
        }
        let orders = u32::from_be_bytes(fields.take()?);
        let (root, log) = (numbered(fields)?, numbered(fields)?);
        let retiring = match fields.take::<1>()? {
            [0] => None,
            [1] => Some(Retiring { was: numbered(fields)?, until_ns: fields.number()? }),
            _ => return None,
        };
        Some(Authority { orders, root, log, retiring })
    }
}

/// What an order says, before it is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The order's number: one more than there were.
    pub number: u32,
    /// Why.
    pub cause: Cause,
    /// How long the old log key signs along, in seconds.
    pub overlap_s: u64,
    /// The log key behind it; the one in force, where only the root key changes.
    pub log_key: PublicKey,
}

/// One order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its number, from 1.
    pub number: u32,
    /// Why.
    pub cause: Cause,
    /// How long the old log key signs along, in seconds; 0 where it was revoked.
    pub overlap_s: u64,
    /// The root key behind it.
    pub root_key: PublicKey,
    /// The log key behind it.
    pub log_key: PublicKey,
    certificate: Signature,
    cosignature: Option<Signature>,
    /// None in an order that is still to be taken, and where the log key stays.
    possession: Option<Signature>,
}

impl Order {
    /// Makes an order where the root key is: `root` signs it, and `new_root` too where the root key changes.
    ///
    /// # Errors
    /// [`KeyError`] where a key is not there.
    pub fn sign(
        origin: &Origin,
        change: Change,
        keys: &dyn Keys,
        root: Role,
        new_root: Option<Role>,
    ) -> Result<Order, KeyError> {
        let Change { number, cause, overlap_s, log_key } = change;
        let mut order = Order {
            number,
            cause,
            overlap_s: if cause == Cause::Revoked { 0 } else { overlap_s.min(OVERLAP_S_MAX) },
            root_key: keys.public(new_root.unwrap_or(root))?,
            log_key,
            certificate: [0; 64],
            cosignature: None,
            possession: None,
        };
        let signed = order.signed(origin);
        order.certificate = keys.sign(root, &signed)?;
        order.cosignature = new_root.map(|role| keys.sign(role, &signed)).transpose()?;
        Ok(order)
    }

    /// The order as a ledger takes it: signed by the log key that it brings, which must be held here.
    ///
    /// # Errors
    /// [`KeyError`] where another key is held, or none.
    pub fn taken(
        mut self,
        before: &Authority,
        manifest: &Manifest,
        keys: &dyn Keys,
    ) -> Result<Order, KeyError> {
        self.possession = None;
        if self.log_key != before.log.key {
            let role = Role::Log(self.number);
            // A log key that nobody holds must not come into force: nothing could be published any more.
            if keys.public(role)? != self.log_key {
                let why = "it names another log key than the one that is here";
                return Err(KeyError::Unusable(why.to_owned()));
            }
            self.possession = Some(keys.sign(role, &self.possessed(manifest))?);
        }
        Ok(self)
    }

    fn fields(&self) -> Vec<u8> {
        let fields = [
            &self.number.to_be_bytes()[..],
            &[u8::from(self.cause == Cause::Revoked)],
            &self.overlap_s.to_be_bytes(),
            &self.root_key.bytes(),
            &self.log_key.bytes(),
        ];
        fields.concat()
    }

    fn signed(&self, origin: &Origin) -> Vec<u8> {
        message(Use::Keys, origin, 0, &self.fields())
    }

    /// What the log key signs. The genesis is in it: else what it signed for one ledger could be shown in another.
    fn possessed(&self, manifest: &Manifest) -> Vec<u8> {
        let fields = [&manifest.genesis().0[..], &self.fields()].concat();
        message(Use::LogKey, &manifest.origin, 0, &fields)
    }

    /// The order as the body of an entry.
    #[must_use]
    pub fn body(&self) -> String {
        let optional = |name: &str, signature: &Option<Signature>| {
            signature.as_ref().map_or_else(String::new, |signature| {
                format!(r#""{name}":"{}","#, STANDARD.encode(signature))
            })
        };
        let cosignature = optional("cosignature", &self.cosignature);
        let possession = optional("possession", &self.possession);
        format!(
            r#"{{"cause":"{}","certificate":"{}",{cosignature}"log_key":"{}","number":{},"overlap_s":{},{possession}"root_key":"{}"}}"#,
            self.cause.name(),
            STANDARD.encode(self.certificate),
            STANDARD.encode(self.log_key.bytes()),
            self.number,
            self.overlap_s,
            STANDARD.encode(self.root_key.bytes()),
        )
    }

    /// Reads an order: one spelling is accepted. Whether it is signed is [`Authority::after`]'s to say.
    ///
    /// # Errors
    /// [`Malformed`] for anything else.
    pub fn parse(body: &[u8]) -> Result<Order, Malformed> {
        const WRONG: Malformed = Malformed("keys.changed is not as the format wants it");
        if body.len() > ORDER_BYTES_MAX {
            return Err(WRONG);
        }
        let body_fields: Body<'_> = serde_json::from_slice(body).map_err(|_| WRONG)?;
        let key = |text: &str| {
            let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
            bytes.and_then(|bytes| PublicKey::new(&bytes)).ok_or(WRONG)
        };
        let signature = |text: &str| -> Result<Signature, Malformed> {
            STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(WRONG)
        };
        let cause = match body_fields.cause {
            "rotated" => Cause::Rotated,
            "revoked" if body_fields.overlap_s == 0 => Cause::Revoked,
            _ => return Err(WRONG),
        };
        let order = Order {
            number: body_fields.number,
            cause,
            overlap_s: body_fields.overlap_s,
            root_key: key(body_fields.root_key)?,
            log_key: key(body_fields.log_key)?,
            certificate: signature(body_fields.certificate)?,
            cosignature: body_fields.cosignature.map(signature).transpose()?,
            possession: body_fields.possession.map(signature).transpose()?,
        };
        let one_spelling = order.body().as_bytes() == body && order.overlap_s <= OVERLAP_S_MAX;
        if one_spelling { Ok(order) } else { Err(WRONG) }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    cause: &'a str,
    certificate: &'a str,
    cosignature: Option<&'a str>,
    log_key: &'a str,
    number: u32,
    overlap_s: u64,
    possession: Option<&'a str>,
    root_key: &'a str,
}
