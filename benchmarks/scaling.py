"""scaling (placeholder)"""
def run(plot, json): return 0
