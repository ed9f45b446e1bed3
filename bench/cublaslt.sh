# Sourced: cuBLASLt often lies in a Python package, where the dynamic linker does not look.
if [ -z "${FLASH_GSA_CUBLASLT:-}" ] && ! ldconfig -p | grep 'libcublasLt\.so\.1[23]' >/dev/null; then
  FLASH_GSA_CUBLASLT=$(find / -name 'libcublasLt.so.1[23]' -not -path '/proc/*' 2>/dev/null | head -1)
  export FLASH_GSA_CUBLASLT
fi
