"""The D-Bus types of the properties that a VM's unit is started with (org.freedesktop.systemd1(5)).

pystemd knows half of them, another half in each version: so the table is ours.
"""

_BY_TYPE = {
    "a(sasb)": "ExecStart",
    "a(sasas)": "ExecStartPreEx ExecStopEx ExecStopPostEx",
    "a(sst)": "OpenFile",
    "a(ss)": "DeviceAllow LoadCredential",
    "a(st)": "IOReadBandwidthMax IOWriteBandwidthMax IOReadIOPSMax IOWriteIOPSMax",
    "a(ssbt)": "BindPaths",
    "a(iayu)": "IPAddressAllow IPAddressDeny",
    "aay": "LogExtraFields",
    "as": "After Before Environment InaccessiblePaths OnFailure RuntimeDirectory SupplementaryGroups "
    "SystemCallArchitectures",
    "(bas)": "RestrictAddressFamilies SystemCallFilter",
    "b": "IgnoreOnIsolate RemainAfterExit DynamicUser NoNewPrivileges PrivateUsers PrivateDevices PrivateNetwork "
    "PrivateMounts PrivateIPC ProtectKernelTunables ProtectKernelModules ProtectKernelLogs ProtectControlGroups "
    "ProtectClock ProtectHostname LockPersonality RestrictRealtime RestrictSUIDSGID MemoryDenyWriteExecute "
    "CPUAccounting MemoryAccounting IOAccounting",
    "i": "SystemCallErrorNumber",
    "u": "RestartSteps StartLimitBurst LogRateLimitBurst RuntimeDirectoryMode UMask",
    "t": "TimeoutStartUSec TimeoutStopUSec RestartUSec RestartMaxDelayUSec StartLimitIntervalUSec "
    "LogRateLimitIntervalUSec CapabilityBoundingSet RestrictNamespaces LimitCORE CPUWeight CPUQuotaPerSecUSec IOWeight "
    "MemoryMax",
    "s": "Description Type Slice KillMode Restart RestartMode StandardInput StandardInputFile SyslogIdentifier User "
    "DevicePolicy OOMPolicy WorkingDirectory ProtectSystem ProtectHome PrivateTmpEx ProtectProc ProcSubset KeyringMode",
}
SIGNATURES = {name: signature.encode() for signature, names in _BY_TYPE.items() for name in names.split()}
