# The main job on a real model: `make demo`, or `make demo DATA=DIR` with real WikiText-2 and C4 there.
demo: setup ## quantize a real model, measure what it cost, PASS or FAIL (DATA=DIR: on real WikiText-2)
	@$(MAKE) --no-print-directory tools
	@B='$(B)' DATA='$(DATA)' pipelines/demo.sh
