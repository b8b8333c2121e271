# The memory functions compiled code calls: those of compiler_builtins are absent on *-linux-gnu, and in
# Rust the compiler may turn such a loop into a call of itself.

    .section .text.mem, "ax"
    .global memcpy
    .global memmove
    .global memset
    .global memcmp
    .global bcmp
    .global strlen
memmove:
    movq %rdi, %rax
    subq %rsi, %rax
    cmpq %rdx, %rax
    jb 9f                        # dst inside [src, src+n): copy backwards
memcpy:
    movq %rdi, %rax
1:  cmpq $32, %rdx
    jb 2f
    movdqu (%rsi), %xmm0
    movdqu 16(%rsi), %xmm1
    movdqu %xmm0, (%rdi)
    movdqu %xmm1, 16(%rdi)
    addq $32, %rsi
    addq $32, %rdi
    subq $32, %rdx
    jmp 1b
2:  cmpq $8, %rdx
    jb 3f
    movq (%rsi), %rcx
    movq %rcx, (%rdi)
    addq $8, %rsi
    addq $8, %rdi
    subq $8, %rdx
    jmp 2b
3:  testq %rdx, %rdx
    je 4f
    movb (%rsi), %cl
    movb %cl, (%rdi)
    incq %rsi
    incq %rdi
    decq %rdx
    jmp 3b
4:  ret
9:  movq %rdi, %rax
5:  cmpq $8, %rdx
    jb 6f
    movq -8(%rsi,%rdx), %rcx
    movq %rcx, -8(%rdi,%rdx)
    subq $8, %rdx
    jmp 5b
6:  testq %rdx, %rdx
    je 4b
    movb -1(%rsi,%rdx), %cl
    movb %cl, -1(%rdi,%rdx)
    decq %rdx
    jmp 6b
memset:
    movq %rdi, %rax
    movzbl %sil, %ecx
    movabsq $0x0101010101010101, %r8
    imulq %r8, %rcx
1:  cmpq $8, %rdx
    jb 2f
    movq %rcx, (%rdi)
    addq $8, %rdi
    subq $8, %rdx
    jmp 1b
2:  testq %rdx, %rdx
    je 3f
    movb %cl, (%rdi)
    incq %rdi
    decq %rdx
    jmp 2b
3:  ret
memcmp:
bcmp:
1:  cmpq $8, %rdx
    jb 2f
    movq (%rdi), %rax
    cmpq (%rsi), %rax
    jne 2f
    addq $8, %rdi
    addq $8, %rsi
    subq $8, %rdx
    jmp 1b
2:  testq %rdx, %rdx
    je 3f
    movzbl (%rdi), %eax
    movzbl (%rsi), %ecx
    subl %ecx, %eax
    jne 4f
    incq %rdi
    incq %rsi
    decq %rdx
    jmp 2b
3:  xorl %eax, %eax
4:  ret
strlen:
    xorl %eax, %eax
1:  cmpb $0, (%rdi,%rax)
    je 2f
    incq %rax
    jmp 1b
2:  ret
