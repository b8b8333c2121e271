//! Which network device is which link. The MAC address says it (`02:75:6e:00:..` service,
//! `02:75:6e:01:..` management); devices with other addresses fill the places left, in the order given.

/// "un" with the locally administered bit: the addresses Uni gives to its virtual machines.
const PREFIX: [u8; 3] = [0x02, 0x75, 0x6e];
const SERVICE: u8 = 0x00;
const MANAGEMENT: u8 = 0x01;

/// The devices chosen, as positions in the list given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles {
    /// The device that carries the guest's own service.
    pub service: Option<usize>,
    /// The device that carries monitoring.
    pub management: Option<usize>,
}

/// Chooses the devices for both links. A third device, or a second of one kind, is left out unless a place
/// is free.
#[must_use]
pub fn assign_roles(addresses: &[[u8; 6]]) -> Roles {
    let mut roles = Roles::default();
    for (position, address) in addresses.iter().enumerate() {
        let place = match (address.first_chunk() == Some(&PREFIX), address[3]) {
            (true, SERVICE) => &mut roles.service,
            (true, MANAGEMENT) => &mut roles.management,
            _ => continue,
        };
        place.get_or_insert(position);
    }
    let unnamed = addresses.iter().enumerate().filter(|(_, address)| !names_a_role(address));
    for (position, _) in unnamed {
        if roles.service.is_none() {
            roles.service = Some(position);
        } else if roles.management.is_none() {
            roles.management = Some(position);
        }
    }
    roles
}

fn names_a_role(address: &[u8; 6]) -> bool {
    address.first_chunk() == Some(&PREFIX) && matches!(address[3], SERVICE | MANAGEMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: [u8; 6] = [0x02, 0x75, 0x6e, 0x00, 0x00, 0x07];
    const MONITOR: [u8; 6] = [0x02, 0x75, 0x6e, 0x01, 0x00, 0x07];
    const OTHER: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

    fn roles(service: Option<usize>, management: Option<usize>) -> Roles {
        Roles { service, management }
    }

    #[test]
    fn the_address_decides_whatever_the_order() {
        assert_eq!(assign_roles(&[WEB, MONITOR]), roles(Some(0), Some(1)));
        assert_eq!(assign_roles(&[MONITOR, WEB]), roles(Some(1), Some(0)));
    }

    #[test]
    fn either_link_may_be_absent() {
        assert_eq!(assign_roles(&[]), roles(None, None));
        assert_eq!(assign_roles(&[MONITOR]), roles(None, Some(0)));
        assert_eq!(assign_roles(&[WEB]), roles(Some(0), None));
    }

    #[test]
    fn other_addresses_fill_the_places_left_in_order() {
        assert_eq!(assign_roles(&[OTHER, OTHER]), roles(Some(0), Some(1)));
        assert_eq!(assign_roles(&[OTHER, MONITOR]), roles(Some(0), Some(1)));
        assert_eq!(assign_roles(&[OTHER, WEB]), roles(Some(1), Some(0)));
        assert_eq!(assign_roles(&[OTHER, WEB, OTHER]), roles(Some(1), Some(0)));
    }

    #[test]
    fn a_second_device_of_one_role_never_becomes_the_other() {
        assert_eq!(assign_roles(&[WEB, WEB]), roles(Some(0), None));
    }
}
