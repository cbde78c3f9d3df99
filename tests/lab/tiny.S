# A guest of 512 bytes, boots in 0.1 s without KVM. It counts its boots in the second sector of its own disk, says so on
# COM1, and obeys the ACPI power button and single letters on COM1:
#     p  power off    r  reset    x  panic (pvpanic, ISA port 0x505)    h  hang, deaf to the power button
#     f  flood: 32768 lines with the number of those that are left, as fast as COM1 takes them; then it listens again
#     W  set the watchdog of q35's chipset to 5 seconds, and hang
# It needs SeaBIOS, which puts the ACPI registers at 0x600, and machine pc or q35. BIOS disk calls reach any bus.

    .set COM1, 0x3f8
    .set COM1_STATUS, COM1 + 5          # bit 0: a byte has come, bit 5: ready to send
    .set PM1_STATUS, 0x600              # bit 8: power button was pressed
    .set PM1_ENABLE, 0x602
    .set PM1_CONTROL, 0x604             # bit 13: power off
    .set PVPANIC, 0x505
    .set TCO, 0x660                     # the watchdog: reload, control (+8), time in 0.6 s (+0x12)
    .set GCS, 0xfed1f410                # bit 5: no reset by the watchdog
    .set SECTOR, 0x8000                 # where the second sector is read to

    .code16
    .globl _start
_start:
    cli
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7c00, %sp
    mov %dl, drive
    sti

    in $0xa1, %al                       # mask IRQ 9, ACPI's: we poll
    or $0x02, %al
    out %al, $0xa1
    mov $PM1_STATUS, %dx
    mov $0x0100, %ax
    out %ax, %dx                        # forget old presses
    mov $PM1_ENABLE, %dx
    out %ax, %dx                        # QEMU ignores presses of a button that is not enabled

    mov $0x42, %ah                      # read, count, write
    call disk
    incw SECTOR
    mov $0x4300, %ax
    call disk
    mov $0, %bl
    adc $0, %bl                         # carry: the write failed

    mov $banner, %si
    call puts
    mov SECTOR, %ax
    call putnumber
    mov $'w', %al                       # w: written, E: not
    test %bl, %bl
    jz 1f
    mov $'E', %al
1:  call putc
    mov $newline, %si
    call puts

poll:
    hlt                                 # until the clock ticks, 18 times a second: a dozen of us share a core
    mov $PM1_STATUS, %dx
    in %dx, %ax
    test $0x01, %ah
    jz 1f
    mov $pressed, %si
    call puts
    jmp poweroff
1:  mov $COM1_STATUS, %dx
    in %dx, %al
    test $0x01, %al
    jz poll
    mov $COM1, %dx
    in %dx, %al
    cmp $'p', %al
    je poweroff
    cmp $'r', %al
    je reset
    cmp $'x', %al
    je panic
    cmp $'h', %al
    je hang
    cmp $'f', %al
    je flood
    cmp $'W', %al
    je watchdog
    call putc                           # anything else is echoed
    jmp poll

poweroff:
    mov $PM1_CONTROL, %dx
    mov $0x2000, %ax
    out %ax, %dx
hang:
    cli
    hlt
    jmp hang

reset:
    mov $0xcf9, %dx
    mov $0x06, %al
    out %al, %dx
    jmp hang

panic:
    mov $PVPANIC, %dx
    mov $1, %al
    out %al, %dx
    jmp poll

watchdog:
    cli
    lgdt gdt                            # 4 GiB for a moment: GCS is beyond what the BIOS gives us
    mov %cr0, %eax
    inc %ax
    mov %eax, %cr0
    mov $8, %bx
    mov %bx, %ds
    dec %ax
    mov %eax, %cr0
    xor %bx, %bx
    mov %bx, %ds
    mov $GCS, %esi
    movl $0, (%esi)
    mov $TCO + 0x12, %dx
    mov $4, %ax
    out %ax, %dx
    mov $TCO, %dx
    out %ax, %dx
    jmp hang

flood:
    mov $0x8000, %bp
1:  mov $line, %si
    call puts
    mov %bp, %ax
    call putnumber
    mov $newline, %si
    call puts
    dec %bp
    jnz 1b
    jmp poll

disk:                                   # ah: BIOS function; carry: it failed
    mov $packet, %si
    mov drive, %dl
    int $0x13
    ret

puts:                                   # si: text, ends with 0
    lodsb
    test %al, %al
    jz 1f
    call putc
    jmp puts
1:  ret

putc:                                   # al: character
    push %dx
    push %ax
    mov $COM1_STATUS, %dx
1:  in %dx, %al
    test $0x20, %al
    jz 1b
    pop %ax
    mov $COM1, %dx
    out %al, %dx
    pop %dx
    ret

putnumber:                              # ax
    xor %cx, %cx
    mov $10, %di
1:  xor %dx, %dx
    div %di
    push %dx
    inc %cx
    test %ax, %ax
    jnz 1b
2:  pop %ax
    add $'0', %al
    call putc
    loop 2b
    ret

drive:   .byte 0x80
packet:  .byte 16, 0                    # one sector, to SECTOR, from block 1
         .word 1, SECTOR, 0
         .quad 1
gdt:     .word 15                       # its first entry is free: it describes itself
         .long gdt
         .word 0
         .quad 0x00cf92000000ffff       # data, all of memory
banner:  .asciz "TINY-GUEST boot "
line:    .asciz "TINY-GUEST line "
pressed: .asciz "powerbutton"
newline: .asciz "\r\n"

    .org 510
    .word 0xaa55
