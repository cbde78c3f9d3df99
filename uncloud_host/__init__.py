"""uncloud-host: runs the VMs that etcd designates to this host as systemd services."""
