//! Executes PTX on the CPU, and checks what it does.
