"""What ``make gpu-check`` measures, in minutes; on the CPU with tiny sizes it is its own test."""
