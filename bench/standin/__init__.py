"""A stand-in for NVIDIA's management library: simulated cards behind the real interface.

It is `libnvidia-ml.so.1` in C (`nvml/`), loaded by nvidia-ml-py as the real one is. Nothing in it is
measured. The cards of a rack live in one file that every process maps; `control.Rack` makes it, scripts
failures and tells what is true of a card without asking NVML.

    nvml/rack.c       the shared file and its lock, which survives whoever is killed holding it
    nvml/call.c       around every call: counting, scripted failures, permission, the log of setters
    nvml/clocks.c     which clocks are legal and which are in force
    nvml/physics.c    power, energy, heat, and why a card is not at its clock
    nvml/library.c, queries.c, readings.c, settings.c    NVML's functions
    nvml/extras.c     what real cards get from CUDA: work to do

Where public descriptions of real cards leave it open, the cards

- take a locked clock that is not legal for the legal one below it, and refuse such application clocks;
- go from the old clock to the new one in one step, `settle_s` after a setter's return, and from idle to
  work and under a power limit at once;
- stay at the least locked clock while idle (unless `idles_below_lock`), and keep their memory clock;
- give no event reason for a locked clock, and APPLICATIONS_CLOCKS_SETTING for an application clock that
  was set;
- count energy from the making of the rack, and keep all settings when the last process has left.
"""
