import numpy as np, torch
from pathlib import Path
from PIL import Image
from support.small_runs import on_ranks
from siamtransfer.data import open_labelled
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.features.extract import Transform
from siamtransfer.pretraining.knn_scorer import KnnScorer
from torch import nn
class Mean(nn.Module):
    def forward(self,x): return x.mean(dim=(2,3))
def work(runtime, root):
    a,b=open_labelled('folder',root=root)
    s=KnnScorer(a,b,Transform(16,18,(.5,)*3,(.5,)*3),runtime,3,0.07,max_unreadable=0.2)
    base=s.baselines(Mean()); 
    return base, s.protocol
def test_it():
    f,s=on_ranks(work,'/tmp/hB/set')
    assert f[0]==s[0]; print(f)
    import siamtransfer
    one=work(Runtime(torch.device('cpu'),torch.float32),'/tmp/hB/set')
    assert one==f, (one,f)
    assert f[1]['knn_bank_images']==34
